package face_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
)

// What every face keeps to, whatever it speaks.

type failing func(exchange.Kind, exchange.Place, *exchange.Response)

// failings are all ways in which a face says that something failed: its own, and those of endpoints that have one.
func failings(f face.Face) map[string]failing {
	all := map[string]failing{"": f.Fail}
	for _, e := range f.Endpoints() {
		if e.Fail != nil {
			all[" "+e.Method+" "+e.Pattern] = e.Fail
		}
	}
	return all
}

// TestFailuresTellKindAndPlaceAlone: not what was in the memory before, nor how often it was asked; and the place is told of
// a BadRequest alone.
func TestFailuresTellKindAndPlaceAlone(t *testing.T) {
	places := []exchange.Place{{}, {In: "body", Name: "data"}, {In: "header", Name: "Sessionid"}, {In: "query"}}
	for _, name := range face.Names() {
		for at, fail := range failings(newFace(t, name, everythingOf(name))) {
			for _, kind := range append(exchange.Kinds(), exchange.KindCount+7) {
				var nowhere exchange.Response
				fail(kind, exchange.Place{}, &nowhere)
				for _, place := range places {
					var fresh exchange.Response
					fail(kind, place, &fresh)
					used := exchange.Response{Status: 200, ContentType: "text/html", Body: append(make([]byte, 0, 4096), "what was there"...)}
					fail(kind, place, &used)
					if !reflect.DeepEqual(fresh, used) {
						t.Errorf("%s%s, %s: %s after %s", name, at, kind, used.Body, fresh.Body)
					}
					// By contract, PaymentsGate's clients heal themselves after a 401 that is no JSON.
					plain := at == " POST /auth/token/refresh" && fresh.Status == http.StatusUnauthorized
					whole := strings.HasSuffix(fresh.ContentType, "json") && json.Valid(fresh.Body)
					if fresh.Status < 400 || fresh.Status > 599 || whole == plain || fresh.Clear != nil {
						t.Errorf("%s%s, %s: %d %s %s", name, at, kind, fresh.Status, fresh.ContentType, fresh.Body)
					}
					if kind != exchange.BadRequest && !reflect.DeepEqual(fresh, nowhere) {
						t.Errorf("%s%s, %s tells the place: %s", name, at, kind, fresh.Body)
					}
					for i := range fresh.Body { // it is the caller's own
						fresh.Body[i] = 'x'
					}
				}
			}
		}
	}
}

// TestEndpointsAreWhole: whatever the gateway reads of an endpoint before there is a call.
func TestEndpointsAreWhole(t *testing.T) {
	bodies := []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	for _, name := range face.Names() {
		endpoints := newFace(t, name, everythingOf(name)).Endpoints()
		if len(endpoints) == 0 {
			t.Errorf("%s has no endpoint", name)
		}
		for _, e := range endpoints {
			wrong := func(what string) { t.Errorf("%s, %s %s: %s", name, e.Method, e.Pattern, what) }
			if e.Method != http.MethodGet && !slices.Contains(bodies, e.Method) || !strings.HasPrefix(e.Pattern, "/") {
				wrong("no method, or no path")
			}
			if e.Method == http.MethodGet && (e.MaxBody != 0 || e.Shape != nil) {
				wrong("a body")
			}
			if (e.Parse == nil) != (e.Render == nil) || e.Status != 0 && e.Status/100 != 2 {
				wrong("half of an answer")
			}
			if e.CORS != nil && e.CORS.AnyOrigin && e.CORS.Credentials {
				wrong("any page with the user's cookie")
			}
			seen := map[policy.Operation]bool{}
			for _, op := range e.Operations {
				if !slices.Contains(policy.Operations(), op) || seen[op] {
					wrong("operation " + string(op))
				}
				seen[op] = true
			}
			if len(seen) == 0 {
				wrong("no operation")
			}
		}
	}
}

// TestFacesShareAListener: all faces stand on one, each path also with a slash at its end, as the gateway registers them.
func TestFacesShareAListener(t *testing.T) {
	mux := http.NewServeMux()
	owners := map[string]string{}
	register := func(pattern, owner string) {
		defer func() {
			if conflict := recover(); conflict != nil {
				t.Errorf("%s: %v", owner, conflict)
			}
		}()
		mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	}
	for _, name := range face.Names() {
		for _, e := range newFace(t, name, everythingOf(name)).Endpoints() {
			if other := owners[e.Method+" "+e.Pattern]; other != "" {
				t.Errorf("%s %s is of %s and of %s", e.Method, e.Pattern, other, name)
			}
			owners[e.Method+" "+e.Pattern] = name
			if owners[e.Pattern] != "" {
				continue
			}
			owners[e.Pattern] = name
			register(e.Pattern, fmt.Sprint(name, " ", e.Pattern))
			if !strings.HasSuffix(e.Pattern, "/") && !strings.HasSuffix(e.Pattern, "/{$}") && !strings.HasSuffix(e.Pattern, "...}") {
				register(e.Pattern+"/{$}", fmt.Sprint(name, " ", e.Pattern, " with a slash"))
			}
		}
	}
}
