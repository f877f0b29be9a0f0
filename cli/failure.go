package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/gelery/gelery/internal/brokerurl"
)

// Exit codes. 69 is sysexits' EX_UNAVAILABLE, which Celery uses too.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnavailable = 69
	exitInterrupted = 130
	exitTerminated  = 143
)

const exitCodes = `Exit codes: 0 done, 1 failed, 2 wrong usage, 69 broker or result backend unreachable, 130 interrupted.`

// failure is how a command ends other than well: what failed, why, and what to do about it, a line each, and the exit
// code. What may be empty when the command has said everything already.
type failure struct {
	code            int
	what, why, todo string
}

func (f *failure) Error() string { return f.what }

// print writes the three lines. Whatever URL is in them loses its password here, where nothing can slip by.
func (f *failure) print(w io.Writer, program string) {
	if f.what == "" {
		return
	}
	fmt.Fprintf(w, "%s: %s\n", program, oneLine(f.what))
	if f.why != "" {
		fmt.Fprintf(w, "  why: %s\n", oneLine(f.why))
	}
	if f.todo != "" {
		fmt.Fprintf(w, "  try: %s\n", oneLine(f.todo))
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(brokerurl.Redact(s)), " ") }

// usage is a failure the user can mend by typing something else.
func usage(what, why, todo string) *failure { return &failure{exitUsage, what, why, todo} }

// silent is a failure about which everything has been said.
func silent(code int) *failure { return &failure{code: code} }

// unreachable is a broker or result backend that did not answer, or did not want us.
func unreachable(what, url string, err error) *failure {
	f := &failure{code: exitFailed, what: "cannot use the " + what + " " + url, why: err.Error()}
	flag := map[string]string{"broker": "-b or CELERY_BROKER_URL", "result backend": "--result-backend or CELERY_RESULT_BACKEND"}[what]
	var refused *net.OpError
	if todo := moveWrongKey(f.why); todo != "" {
		f.todo = todo
		return f
	}
	switch {
	case errors.As(err, &refused):
		f.code, f.why = exitUnavailable, refused.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ECONNREFUSED):
		f.code = exitUnavailable
	case strings.Contains(f.why, "WRONGPASS"), strings.Contains(f.why, "NOAUTH"), strings.Contains(f.why, "invalid password"),
		strings.Contains(f.why, "without any password configured"):
		f.todo = "check user and password in the URL: " + flag
		return f
	}
	if f.code == exitUnavailable {
		f.what = "cannot reach the " + what + " " + url
		f.todo = "check the host and port (" + flag + "), or start a broker for development with: gelery dev"
		return f
	}
	f.todo = "check the URL (" + flag + ") and its options"
	return f
}

// interrupted is the cause of a context that a signal has ended.
type interrupted struct{ signal os.Signal }

func (i *interrupted) Error() string { return i.signal.String() }

// asFailure makes whatever a command returns a failure. Errors that are none yet have no advice to give.
func asFailure(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if i, ok := errors.AsType[*interrupted](context.Cause(ctx)); ok {
		if i.signal == syscall.SIGINT {
			return silent(exitInterrupted)
		}
		return silent(exitTerminated)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return silent(exitInterrupted)
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if todo := moveWrongKey(err.Error()); todo != "" {
		return &failure{exitFailed, "a key of the broker is not what it should be", err.Error(), todo}
	}
	return &failure{code: exitFailed, what: err.Error()}
}

var (
	wrongKey  = regexp.MustCompile(`(?:key|list) ("(?:[^"\\]|\\.)*"): .*WRONGTYPE `)
	plainWord = regexp.MustCompile(`^[\pL\pN._:/@-]+$`)
)

// moveWrongKey is the advice for a text about a key that holds something else than it should, "" for any other text. A
// key that needs quotes is quoted as Go does, which redis-cli understands at its prompt.
func moveWrongKey(text string) string {
	if !strings.Contains(text, "WRONGTYPE ") {
		return ""
	}
	m := wrongKey.FindStringSubmatch(text)
	if m == nil {
		return "find the key of another type with TYPE in redis-cli, a queue's is a list, and move it away with RENAME"
	}
	key, err := strconv.Unquote(m[1])
	if err != nil {
		key = m[1]
	}
	moved := key + ".moved"
	if !plainWord.MatchString(key) {
		key, moved = strconv.Quote(key), strconv.Quote(moved)
	}
	return fmt.Sprintf("in redis-cli: TYPE %[1]s tells what it is, RENAME %[1]s %[2]s moves it away", key, moved)
}
