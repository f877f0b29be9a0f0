package taskfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/task"
)

// serve starts a server and returns the text of a task file that calls a path of it.
func serve(t *testing.T, path string, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return "tasks:\n- name: t.call\n  http:\n    url: '" + s.URL + path + "'\n"
}

func TestEndpointCalls(t *testing.T) {
	t.Parallel()
	seen := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = fmt.Fprintf(w, `[%q, %q, %q, %q]`, r.Method, r.URL.RequestURI(), r.Header.Get("X-Who"), body)
	}
	for name, c := range map[string]struct {
		more string
		path string
		want any
	}{
		"post":   {"", "/a", []any{"POST", "/a", "", `{"args":[1],"id":"id-1","kwargs":{"who":"a/b?c&d=é"},"retries":2,"task":"t.call"}`}},
		"kwargs": {"    body: kwargs\n", "/a", []any{"POST", "/a", "", `{"who":"a/b?c&d=é"}`}},
		"get":    {"    method: get\n", "/{{kwargs.who}}/x?y={{kwargs.who}}", []any{"GET", "/a%2Fb%3Fc%26d%3D%C3%A9/x?y=a%2Fb%3Fc%26d%3D%C3%A9", "", ""}},
		"header": {"    body: none\n    headers: {x-who: 'I am {{kwargs.who}}'}\n", "/", []any{"POST", "/", "I am a/b?c&d=é", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := run(t.Context(), one(t, serve(t, c.path, seen)+c.more), []any{int64(1)}, map[string]any{"who": "a/b?c&d=é"})
			if err != nil || !reflect.DeepEqual(v, c.want) {
				t.Errorf("got %q, %v; expected %q", v, err, c.want)
			}
		})
	}
}

func TestEndpointAnswers(t *testing.T) {
	t.Parallel()
	answer := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for name, c := range map[string]struct {
		h           http.HandlerFunc
		more        string
		want        any
		class, says string
	}{
		"text":       {answer(200, "text/plain", "hello\n"), "", "hello", "", ""},
		"problem":    {answer(200, "application/problem+json", `{"a": 1}`), "", map[string]any{"a": int64(1)}, "", ""},
		"as text":    {answer(200, "application/json", `{"a": 1}`), "  output: text\n", `{"a": 1}`, "", ""},
		"no content": {answer(204, "", ""), "", "", "", ""},
		"not found":  {answer(404, "text/plain", "no\nsuch"), "", nil, "HTTPException", `answered 404 Not Found: "no\nsuch"`},
		"accepted":   {answer(404, "text/plain", "none"), "  status: {404: success}\n", "none", "", ""},
		"narrowest":  {answer(404, "text/plain", "none"), "  status: {4xx: success, 400-410: failure}\n", nil, "HTTPException", "404"},
		"no json":    {answer(200, "application/json", `{`), "", nil, "ValueError", "the answer is not json"},
		"no text":    {answer(200, "text/plain", "\xff"), "", nil, "ValueError", "not UTF-8"},
		"too much":   {answer(200, "text/plain", "12345678901"), "  max_output: 10\n", nil, "HTTPException", "more than 10 bytes"},
		"endless": {func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, "", nil, "HTTPException", "more than 1048576 bytes"},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
		},
			"", nil, "HTTPException", "302"},
		"loop":     {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }, "", nil, "HTTPException", "302"},
		"hangs up": {func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, "", nil, "ConnectionError", "EOF"},
		"slow": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body) // else the server does not see the connection end
			<-r.Context().Done()
		}, "    timeout: 0.05\n", nil, "TimeoutError", "POST http://127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := run(t.Context(), one(t, serve(t, "/secret?token=1", c.h)+c.more), nil, nil)
			if c.class != "" {
				wantException(t, err, c.class, c.says)
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("the text tells the path: %v", err)
				}
			} else if err != nil || !reflect.DeepEqual(v, c.want) {
				t.Errorf("got %#v, %v; expected %#v", v, err, c.want)
			}
		})
	}
}

// TestPathStays: no caller climbs out of the path that the file gives.
func TestPathStays(t *testing.T) {
	t.Parallel()
	d := one(t, serve(t, "/a/{{args.0}}/b", func(http.ResponseWriter, *http.Request) { t.Error("it was called") }))
	for _, part := range []string{"..", ".", "../../admin", `..\admin`, "a/../../b", ""} {

		_, err := run(t.Context(), d, []any{part}, nil)
		wantException(t, err, "ValueError", "the arguments make no URL")
	}
}

// TestPasswordStays: what the URL says of who calls is in no text.
func TestPasswordStays(t *testing.T) {
	t.Parallel()
	text := serve(t, "/x", func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "hunter2" || r.Host != "example.com" {
			t.Errorf("called with %q at %s", password, r.Host)
		}
		w.WriteHeader(http.StatusInternalServerError)
	}) + "    headers: {host: example.com}\n"
	text = strings.Replace(text, "http://", "http://bob:hunter2@", 1)
	_, err := run(t.Context(), one(t, text), nil, nil)
	wantException(t, err, "HTTPException", "answered 500")
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the text tells the password: %v", err)
	}
}

func TestEndpointIsEnded(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	d := one(t, serve(t, "/", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body) // else the server does not see the connection end
		close(asked)
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := run(ctx, d, nil, nil)
		ended <- err
	}()
	select {
	case <-asked:
	case <-time.After(30 * time.Second):
		t.Fatal("nobody called")
	}
	cancel(task.ErrSoftTimeLimit)
	select {
	case err := <-ended:
		if !errors.Is(err, task.ErrSoftTimeLimit) {
			t.Errorf("got %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the call does not end")
	}
}

// TestEndpointRetries: by the status, after the time that the endpoint asks for, and when there is no answer.
func TestEndpointRetries(t *testing.T) {
	t.Parallel()
	text := serve(t, "/{{args.0}}", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/later":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		case "/busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			panic(http.ErrAbortHandler)
		}
	})
	d := one(t, text+"  status: {429: retry, 5xx: retry}\n  retry: {max: 1}\n")
	if _, err := run(t.Context(), d, []any{"busy"}, nil); !errors.Is(err, errAgain) {
		t.Errorf("503: %v; expected it to be tried again", err)
	}
	if _, err := run(t.Context(), d, []any{"gone"}, nil); !errors.Is(err, errAgain) {
		t.Errorf("no answer: %v; expected it to be tried again", err)
	}
	_, err := run(t.Context(), d, []any{"later"}, nil)
	if _, ok := errors.AsType[*task.RetryError](err); !ok {
		t.Errorf("429 with Retry-After: %v; expected a retry with its own countdown", err)
	}
	if _, err := run(t.Context(), one(t, text), []any{"gone"}, nil); errors.Is(err, errAgain) {
		t.Error("no answer is tried again without a retry in the file")
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "999999999999": maxRetryAfter,
		"Wed, 21 Oct 2015 07:28:00 GMT": 0, "99999999999999999999999": 0} {
		if got := retryAfter(http.Header{"Retry-After": {text}}); got != want {
			t.Errorf("%q is %v; expected %v", text, got, want)
		}
	}
}
