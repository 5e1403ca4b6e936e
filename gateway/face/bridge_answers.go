package face

import (
	"cmp"
	"net/http"

	"github.com/cardstile/cardstile/gateway/exchange"
)

// This file is what Bridge's clients read where a call fails.

// bridgeAnswers: a 4xx is {code,message}, about a header with its location and name, about anything else with a source
// where it is known. A 5xx is a list of errors.
var bridgeAnswers = answers{
	exchange.Internal:         bridgeFailure(http.StatusInternalServerError, "unexpected", "An expected error occurred, you may try again later"), // the vendor's own words
	exchange.BadRequest:       bridgeAnswer(http.StatusBadRequest, "invalid_parameters", bridgeResubmit),
	exchange.Unauthorized:     bridgeHeader(http.StatusUnauthorized, "invalid", "Api-Key", "Invalid Api-Key header"),
	exchange.Forbidden:        bridgeAnswer(http.StatusForbidden, "forbidden", "Not permitted"),
	exchange.NotFound:         bridgeAnswer(http.StatusNotFound, "Invalid", "Unknown customer id"),
	exchange.NoRoute:          bridgeAnswer(http.StatusNotFound, "not_found", "Not found"),
	exchange.MethodNotAllowed: bridgeAnswer(http.StatusMethodNotAllowed, "method_not_allowed", "Method not allowed"),
	exchange.TooLarge:         bridgeAnswer(http.StatusRequestEntityTooLarge, "payload_too_large", "Request body is too large"),
	exchange.UnsupportedMedia: bridgeAnswer(http.StatusUnsupportedMediaType, "unsupported_media_type", "Content-Type must be application/json"),
	exchange.LimitReached:     bridgeAnswer(http.StatusTooManyRequests, "rate_limit_exceeded", "Too many requests"),
	exchange.Unavailable:      bridgeFailure(http.StatusServiceUnavailable, "unavailable", "Service unavailable, you may try again later"),
	exchange.IssuerFailed:     bridgeFailure(http.StatusBadGateway, "bad_gateway", "The card issuer failed, you may try again later"),
	exchange.IssuerTimeout:    bridgeFailure(http.StatusGatewayTimeout, "gateway_timeout", "The card issuer did not answer in time, you may try again later"),
	exchange.OutcomeUnknown:   bridgeFailure(http.StatusGatewayTimeout, "outcome_unknown", "It is not known whether the change was made"),
	exchange.InFlight:         bridgeHeader(http.StatusConflict, "in_progress", "Idempotency-Key", "A request with this Idempotency-Key is being processed"),
	exchange.OtherBody:        bridgeHeader(http.StatusUnprocessableEntity, "invalid", "Idempotency-Key", "Idempotency-Key was used for another request"),
	exchange.KeyExpired:       bridgeHeader(http.StatusUnprocessableEntity, "invalid", "Idempotency-Key", "Idempotency-Key was used more than 24 hours ago"),
	exchange.AlreadySet:       bridgeAnswer(http.StatusBadRequest, "invalid", "Card account is in that state already"),
}

const bridgeResubmit = "Please resubmit the following parameters that are either missing or invalid."

var (
	bridgeNoKey    = bridgeHeader(http.StatusUnauthorized, "required", "Api-Key", "Missing Api-Key header").body
	bridgeBadProof = bridgeAnswer(http.StatusUnauthorized, "invalid", "Invalid ephemeral key, secret or timestamp").body
)

// bridgeSources are the answers to requests that are wrong at a place that is known. Nothing that was sent is in them.
var bridgeSources = bridgeSourcesOf(map[exchange.Place]string{
	{In: "body"}:                                "must be one JSON object of members that are known, each once and of its type",
	{In: "body", Name: "client_nonce"}:          "must be a nonce: 44 characters of base64, alone in an object",
	{In: "body", Name: "initiator"}:             "must be developer or customer",
	{In: "body", Name: "reason"}:                "must be lost_or_stolen, suspicious_activity, planned_inactivity, suspected_fraud or other",
	{In: "body", Name: "reason_detail"}:         "must be at most 512 bytes, without a card number",
	{In: "body", Name: "starting_at"}:           "is not supported: a freeze begins when it is asked for",
	{In: "body", Name: "ending_at"}:             "is not supported: a freeze ends when it is asked for",
	{In: "query", Name: "secret"}:               "must be there once",
	{In: "query", Name: "timestamp"}:            "must be there once",
	{In: "header", Name: bridgeSecretHeader}:    "must be there once",
	{In: "header", Name: bridgeTimestampHeader}: "must be there once",
	{In: "header", Name: "Idempotency-Key"}:     "must be there once, as 1 to 255 visible characters",
})

func bridgeSourcesOf(why map[exchange.Place]string) map[exchange.Place]string {
	said := map[exchange.Place]string{}
	for at, text := range why {
		b := bridgeCode("invalid_parameters", bridgeResubmit)
		b = exchange.AppendMember(append(b, `,"source":{`...), "location", at.In)
		b = exchange.AppendMember(append(b, `,"key":{`...), cmp.Or(at.Name, at.In), text)
		said[at] = string(append(b, `}}}`...))
	}
	return said
}

// bridgeCode is an object with code and message, still open.
func bridgeCode(code, message string) []byte {
	b := exchange.AppendMember([]byte{'{'}, "code", code)
	return exchange.AppendMember(append(b, ','), "message", message)
}

func bridgeAnswer(status int, code, message string) answer {
	return answer{status, string(append(bridgeCode(code, message), '}'))}
}

func bridgeHeader(status int, code, name, message string) answer {
	b := exchange.AppendMember([]byte{'{'}, "code", code)
	b = exchange.AppendMember(append(b, `,"location":"header",`...), "name", name)
	return answer{status, string(append(exchange.AppendMember(append(b, ','), "message", message), '}'))}
}

func bridgeFailure(status int, code, message string) answer {
	b := append([]byte(`{"errors":[`), bridgeCode(code, message)...)
	return answer{status, string(append(b, `}]}`...))}
}
