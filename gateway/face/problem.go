package face

import (
	"net/http"
	"strconv"

	"github.com/cardstile/cardstile/gateway/exchange"
)

// FailProblem answers where no face has been reached yet (an unknown path, a shed connection), in RFC 9457's shape.
func FailProblem(kind exchange.Kind, out *exchange.Response) {
	said := problems.find(kind)
	out.Status, out.ContentType = said.status, "application/problem+json"
	out.Body = append(out.Body[:0], said.body...)
}

// FailMisdirected answers a request that came to another host than it is for (RFC 9110 section 15.5.20). It says no more.
func FailMisdirected(out *exchange.Response) {
	out.Status, out.ContentType = misdirected.status, "application/problem+json"
	out.Body = append(out.Body[:0], misdirected.body...)
}

var misdirected = problem(http.StatusMisdirectedRequest)

var problems = answers{
	exchange.Internal:         problem(http.StatusInternalServerError),
	exchange.BadRequest:       problem(http.StatusBadRequest),
	exchange.Forbidden:        problem(http.StatusForbidden),
	exchange.NoRoute:          problem(http.StatusNotFound),
	exchange.MethodNotAllowed: problem(http.StatusMethodNotAllowed),
	exchange.UnsupportedMedia: problem(http.StatusUnsupportedMediaType),
	exchange.LimitReached:     problem(http.StatusTooManyRequests),
	exchange.TooLarge:         problem(http.StatusRequestEntityTooLarge),
	exchange.Unavailable:      problem(http.StatusServiceUnavailable),
}

// problem is a body of type about:blank, whose title is the status' own phrase (RFC 9457 section 4.2.1).
func problem(status int) answer {
	b := exchange.AppendMember([]byte(`{"type":"about:blank",`), "title", http.StatusText(status))
	b = strconv.AppendInt(append(b, `,"status":`...), int64(status), 10)
	return answer{status, string(append(b, '}'))}
}
