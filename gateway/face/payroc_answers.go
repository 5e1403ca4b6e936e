package face

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	"github.com/cardstile/cardstile/gateway/exchange"
)

// This file is what Payroc's clients read where a call fails: RFC 7807, with the members errors and resource. Source:
// docs.payroc.com, `Errors`; statuses that are not there, and the titles and details of some that are, are ours.

// failPayroc writes the answer to a kind. A BadRequest says what it is about.
func (a answers) failPayroc(kind exchange.Kind, at exchange.Place, out *exchange.Response) {
	said := a.find(kind)
	if kind == exchange.BadRequest && at != (exchange.Place{}) {
		said = payrocWrong(at)
	}
	out.Status, out.ContentType = said.status, "application/problem+json"
	out.Body = append(out.Body[:0], said.body...)
	if kind == exchange.InFlight {
		out.RetryAfter = 1
	}
}

// payrocAnswersOf are the answers where a resource is acted on. Clients repeat a 5xx and a 429 twice, and take a 409 for final:
// a repetition that finds its first try still under way is to come again.
func payrocAnswersOf(resource string) answers {
	const (
		apiError = "We are unable to process your request at this time"
		inUse    = "The idempotency key came with another body"
		expired  = "The idempotency key was used more than 24 hours ago"
	)
	of := "," + string(exchange.AppendMember(nil, "resource", resource))
	failure := func(status int, detail string) answer {
		return payrocProblem(status, "api-error", "Api error", detail, "")
	}
	return answers{
		exchange.Internal:         failure(http.StatusInternalServerError, apiError),
		exchange.BadRequest:       payrocBadRequest("request", "Invalid format", "The request is invalid"),
		exchange.Unauthorized:     payrocProblem(http.StatusUnauthorized, "not-authorized", "Not authorized", "We can’t verify your identity. This can occur if your Bearer token has expired.", ""),
		exchange.Forbidden:        payrocProblem(http.StatusForbidden, "forbidden", "Forbidden", "You do not have permission to perform this action", of),
		exchange.NotFound:         payrocProblem(http.StatusNotFound, "not-found", "Not found", "The resource does not exist", of),
		exchange.NoRoute:          payrocProblem(http.StatusNotFound, "not-found", "Not found", "The resource does not exist", of),
		exchange.MethodNotAllowed: payrocProblem(http.StatusMethodNotAllowed, "method-not-allowed", "Method not allowed", "The resource does not have this method", ""),
		exchange.TooLarge:         payrocProblem(http.StatusRequestEntityTooLarge, "payload-too-large", "Payload too large", "The body of the request is too large", ""),
		exchange.UnsupportedMedia: payrocProblem(http.StatusUnsupportedMediaType, "unsupported-media-type", "Unsupported media type", "The body of the request must be application/json, uncompressed", ""),
		exchange.LimitReached:     payrocProblem(http.StatusTooManyRequests, "too-many-requests", "Too many requests", "You have reached a limit. Try again later.", ""),
		exchange.Unavailable:      failure(http.StatusServiceUnavailable, apiError),
		exchange.InFlight:         failure(http.StatusServiceUnavailable, "A request with this idempotency key is being processed"),
		exchange.IssuerFailed:     failure(http.StatusBadGateway, apiError),
		exchange.IssuerTimeout:    failure(http.StatusGatewayTimeout, apiError),
		exchange.OutcomeUnknown:   failure(http.StatusGatewayTimeout, "It is not known whether the request was carried out"),
		exchange.OtherBody:        payrocProblem(http.StatusConflict, "idempotency-key-in-use", "Idempotency key in use", inUse, ""),
		exchange.KeyExpired:       payrocProblem(http.StatusConflict, "idempotency-key-in-use", "Idempotency key in use", expired, ""),
	}
}

// payrocResource is what a path is about: its last segment that is no wildcard.
func payrocResource(pattern string) string {
	name := ""
	for segment := range strings.SplitSeq(pattern, "/") {
		if !strings.HasPrefix(segment, "{") {
			name = segment
		}
	}
	return name
}

var (
	payrocAnswers = payrocAnswersOf("authorize")

	// payrocTerminalAnswers: the contract has no 404 where sessions begin. A terminal that is not there, or another's, is one that
	// its caller may do nothing with.
	payrocTerminalAnswers = payrocAnswersOf("processing-terminals").but(answers{
		exchange.NotFound: payrocAnswersOf("processing-terminals")[exchange.Forbidden],
	})

	// payrocPageAnswers: a 401 would end the page's script at once; of a bad session it reads this.
	payrocPageAnswers = payrocAnswersOf("hosted-fields-sessions").but(answers{
		exchange.Unauthorized: payrocBadRequest("hostedFieldsSessionId", "Invalid format", "'hostedFieldsSessionId' supplied is invalid"),
	})
)

// What is wrong with a request and has an answer of its own.
var (
	payrocNoKey  = exchange.Place{In: "header", Name: "Idempotency-Key missing"}
	payrocNoJSON = exchange.Place{In: "header", Name: "Accept"}
)

const (
	payrocInvalid = "Invalid format"
	payrocAbsent  = "Required field not populated"
)

// payrocPlaces are the answers to requests that are wrong at a place that is known. Nothing that was sent is in them.
var payrocPlaces = map[exchange.Place]answer{
	payrocNoKey: payrocProblem(http.StatusBadRequest, "idempotency-key-missing", "Idempotency key missing", "The Idempotency-Key header is required",
		payrocErrors("Idempotency-Key", payrocAbsent, "The 'Idempotency-Key' header is required")),
	payrocNoJSON: payrocProblem(http.StatusNotAcceptable, "not-acceptable", "Not acceptable", "The response is application/json", ""),

	{In: "body"}:                              payrocBadRequest("body", payrocInvalid, "The body must be one JSON object of members that are known, each once and of its type"),
	{In: "header", Name: "Idempotency-Key"}:   payrocBadRequest("Idempotency-Key", payrocInvalid, "'Idempotency-Key' must be a UUID v4"),
	{In: "body", Name: "libVersion"}:          payrocBadRequest("libVersion", payrocInvalid, "Invalid libVersion: it must be a supported version of the Hosted Fields library"),
	{In: "body", Name: "scenario"}:            payrocBadRequest("scenario", payrocInvalid, "'scenario' must be 'payment', or 'tokenization' where the merchant can save payment details"),
	{In: "body", Name: "type"}:                payrocBadRequest("type", payrocInvalid, "'type' must be 'cardNumber', 'cvv', 'expiryDate' or 'cardholderName'"),
	{In: "body", Name: payrocExpiry}:          payrocBadRequest(payrocExpiry, payrocInvalid, "'expiryDate' must be a date as MMYY that is not in the past"),
	{In: "body", Name: "card"}:                payrocBadRequest(payrocCVV, payrocInvalid, "'cvv' supplied is invalid"), // all else was judged before
	{In: "body", Name: "card_number"}:         payrocBadRequest("body", payrocInvalid, "The body holds a card number, which belongs into Hosted Fields"),
	{In: "body", Name: "missing_pan"}:         payrocMissing(payrocNumber),
	{In: "body", Name: "missing_cvc"}:         payrocMissing(payrocCVV),
	{In: "body", Name: "missing_expiry"}:      payrocMissing(payrocExpiry),
	{In: "body", Name: "missing_name"}:        payrocMissing(payrocHolder),
	{In: "body", Name: "paymentMethod.type"}:  payrocBadRequest("paymentMethod.type", payrocInvalid, "'paymentMethod' must be of type 'singleUseToken', with a token and nothing else"),
	{In: "body", Name: "paymentMethod.token"}: payrocBadRequest("paymentMethod.token", payrocInvalid, "'paymentMethod.token' supplied is invalid"),
}

// payrocWrong is the answer to a request that is wrong at a place. Its name is never the caller's word.
func payrocWrong(at exchange.Place) answer {
	if said, ok := payrocPlaces[at]; ok {
		return said
	}
	name := cmp.Or(at.Name, at.In)
	return payrocBadRequest(name, payrocInvalid, "'"+name+"' supplied is invalid")
}

func payrocMissing(name string) answer {
	return payrocBadRequest(name, payrocAbsent, "The '"+name+"' field is required")
}

func payrocBadRequest(parameter, detail, message string) answer {
	return payrocProblem(http.StatusBadRequest, "bad-request", "Bad request",
		"One or more validation errors occurred, see error section for more info", payrocErrors(parameter, detail, message))
}

// payrocErrors is the member errors, of one.
func payrocErrors(parameter, detail, message string) string {
	b := exchange.AppendMember([]byte(`,"errors":[{`), "parameter", parameter)
	b = exchange.AppendMember(append(b, ','), "detail", detail)
	return string(append(exchange.AppendMember(append(b, ','), "message", message), `}]`...))
}

// payrocProblem is a problem; more is what stands behind its detail.
func payrocProblem(status int, fragment, title, detail, more string) answer {
	b := exchange.AppendMember([]byte{'{'}, "type", "https://docs.payroc.com/api/errors#"+fragment)
	b = exchange.AppendMember(append(b, ','), "title", title)
	b = strconv.AppendInt(append(b, `,"status":`...), int64(status), 10)
	b = append(exchange.AppendMember(append(b, ','), "detail", detail), more...)
	return answer{status, string(append(b, '}'))}
}
