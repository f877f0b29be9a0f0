package taskfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
)

// endpoint calls a URL for each call.
type endpoint struct {
	*entry
	base    string // scheme and host, which no caller chooses
	shown   string // the same without a password, for errors
	rest    template
	headers map[string]template
	status  []codes
	client  *http.Client
}

const maxRedirects = 5

// endpoint checks what an entry says of its HTTP call.
func (e *entry) endpoint(complain func(string, ...any)) task.Handler {
	h := e.HTTP
	x := &endpoint{entry: e, headers: map[string]template{}}
	for key, set := range map[string]bool{"exit": e.Exit != nil, "input": e.Input != "", "dir": e.Dir != "", "env": e.Env != nil,
		"inherit_env": e.InheritEnv != nil, "kill_after": e.KillAfter != 0} {
		if set {
			complain("%s is for commands", key)
		}
	}
	h.Method = strings.ToUpper(either(h.Method, http.MethodPost))
	e.oneOf(complain, "http: method", h.Method, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
	e.oneOf(complain, "http: body", h.Body, "", bodyCall, bodyKwargs, none)
	if h.Body == "" {
		h.Body = none
		if h.Method == http.MethodPost || h.Method == http.MethodPut || h.Method == http.MethodPatch {
			h.Body = bodyCall
		}
	}
	x.readURL(complain)
	for name, text := range h.Headers {
		t, err := parseTemplate(text, expander("http: headers: "+name, complain))
		if err != nil {
			complain("http: headers: %s: %v", name, err)
		}
		x.headers[http.CanonicalHeaderKey(name)] = t
	}
	var err error
	if x.status, err = e.Status.rules(999, actions{"2xx": success, "*": failed}); err != nil {
		complain("status: %v", err)
	}
	x.client = &http.Client{
		Timeout:       time.Duration(either(h.Timeout, period(defaultTimeout))),
		CheckRedirect: sameHost,
	}
	return x.handle
}

// readURL splits the URL where the callers' part may begin: behind the host, so that no caller chooses whom the worker
// talks to.
func (x *endpoint) readURL(complain func(string, ...any)) {
	t, err := parseTemplate(x.HTTP.URL, expander("http: url", complain))
	if err != nil {
		complain("http: url: %v", err)
		return
	}
	if len(t) == 0 || t[0].read != nil {
		complain("http: url: expected https://host/path")
		return
	}
	scheme, after, ok := strings.Cut(t[0].text, "://")
	end := strings.IndexAny(after, "/?#")
	if end < 0 {
		end = len(after)
		if len(t) > 1 {
			complain("http: url: a placeholder may stand behind the host only")
			return
		}
	}
	u, err := url.Parse(scheme + "://" + after[:end])
	if !ok || err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		complain("http: url: expected https://host/path")
		return
	}
	x.base, x.shown = scheme+"://"+after[:end], u.Scheme+"://"+u.Host
	t[0].text = after[end:]
	x.rest = t
}

// sameHost follows redirects to the host that was asked, and to no other.
func sameHost(next *http.Request, before []*http.Request) error {
	if len(before) >= maxRedirects || next.URL.Host != before[0].URL.Host || next.URL.Scheme != before[0].URL.Scheme {
		return http.ErrUseLastResponse
	}
	return nil
}

// handle makes one HTTP call.
func (x *endpoint) handle(ctx context.Context, r *protocol.Request) (any, error) {
	request, err := x.request(ctx, r)
	if err != nil {
		return nil, err
	}
	reply, err := x.client.Do(request)
	if err != nil {
		return nil, x.unreachable(ctx, err)
	}
	defer func() { _ = reply.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(reply.Body, int64(x.MaxOutput)+1))
	switch {
	case err != nil:
		return nil, x.unreachable(ctx, err)
	case len(body) > x.MaxOutput:
		return nil, x.failure("answered more than %d bytes (max_output)", x.MaxOutput)
	}
	if then := choose(x.status, reply.StatusCode); then != success {
		return nil, conclude(then, x.failure("answered %s%s", reply.Status, excerpt(body)), retryAfter(reply.Header))
	}
	form := x.Output
	if form == "" {
		form = formOf(reply.Header.Get("Content-Type"))
	}
	v, err := decodeOutput(form, body)
	if err != nil {
		return nil, task.AsPython(fmt.Errorf("%s %s: the answer is not %s: %w", x.HTTP.Method, x.shown, form, err), "builtins", "ValueError")
	}
	return v, nil
}

func (x *endpoint) request(ctx context.Context, r *protocol.Request) (*http.Request, error) {
	rest, err := x.rest.fill(r, inURL)
	if err != nil {
		return nil, err
	}
	if err := staysInside(rest); err != nil {
		return nil, err
	}
	var body []byte
	switch x.HTTP.Body {
	case bodyCall:
		body, err = call(r)
	case bodyKwargs:
		body, err = serialization.AppendJSON(nil, keywords(r))
	}
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, x.HTTP.Method, x.base+rest, bytes.NewReader(body))
	if err != nil {
		return nil, task.AsPython(fmt.Errorf("the arguments make no URL: %w", errors.Unwrap(err)), "builtins", "ValueError")
	}
	if len(body) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("User-Agent", "gelery")
	if id, err := header(r.ID); err == nil {
		request.Header.Set("X-Task-Id", id)
	}
	for name, t := range x.headers {
		v, err := t.fill(r, header)
		if err != nil {
			return nil, err
		}
		if name == "Host" {
			request.Host = v
		}
		request.Header.Set(name, v)
	}
	return request, nil
}

// staysInside refuses a path out of which a caller's value would lead: servers and proxies decode %2F and dots before they
// read a path. A placeholder that leaves its segment empty would ask for the folder above.
func staysInside(rest string) error {
	path, _, _ := strings.Cut(rest, "?")
	decoded, err := url.PathUnescape(path)
	if err == nil {
		for segment := range strings.FieldsFuncSeq(decoded, func(r rune) bool { return r == '/' || r == '\\' }) {
			if segment == "." || segment == ".." {
				err = errors.New("they climb out of its path")
			}
		}
	}
	if err != nil {
		return task.AsPython(fmt.Errorf("the arguments make no URL: %w", err), "builtins", "ValueError")
	}
	return nil
}

// inURL makes a value a part of a path or a query, and nothing more. Nothing is no part: /users/ is not /users/7.
func inURL(text string) (string, error) {
	if text == "" {
		return "", task.AsPython(errors.New("the arguments make no URL: a part of it would be empty"), "builtins", "ValueError")
	}
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20"), nil
}

// header keeps a caller's value from ending the header it stands in.
func header(text string) (string, error) {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text), nil
}

// unreachable is a call without an answer. It is tried again where a retry is configured. The URL is left out of the
// text: its path and query may hold what the caller sent, or a secret.
func (x *endpoint) unreachable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%s %s was ended: %w", x.HTTP.Method, x.shown, cause)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	class := "ConnectionError"
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		class = "TimeoutError"
	}
	err = task.AsPython(fmt.Errorf("%s %s: %w", x.HTTP.Method, x.shown, err), "builtins", class)
	if x.Retry != nil {
		return retryOf(err, 0)
	}
	return err
}

func (x *endpoint) failure(format string, args ...any) error {
	return task.AsPython(fmt.Errorf("%s %s "+format, append([]any{x.HTTP.Method, x.shown}, args...)...), "http.client", "HTTPException")
}

// excerpt is the beginning of an answer, for the text of a failure.
func excerpt(body []byte) string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), 512)]), "\uFFFD"))
	if text == "" {
		return ""
	}
	return ": " + strconv.Quote(text)
}

// maxRetryAfter bounds what an endpoint may ask for.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads the header Retry-After: seconds or a date; 0 without one.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return min(time.Duration(min(n, 1e6))*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(time.Until(at), 0), maxRetryAfter)
	}
	return 0
}

// formOf chooses the form of a result by the answer's content type.
func formOf(contentType string) string {
	kind, _, err := mime.ParseMediaType(contentType)
	if err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json")) {
		return outputJSON
	}
	return outputText
}
