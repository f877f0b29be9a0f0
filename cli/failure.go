package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/transport"
)

// Exit codes. 69, 70 and 73 are sysexits' EX_UNAVAILABLE, EX_SOFTWARE and EX_CANTCREAT; Celery uses the first and the last too.
const (
	exitOK           = 0
	exitFailed       = 1
	exitUsage        = 2
	exitUnavailable  = 69
	exitAbandoned    = 70
	exitCannotCreate = 73
	exitInterrupted  = 130
	exitTerminated   = 143
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
	if f.todo = firstOf(moveWrongKey(f.why), admission(err, flag)); f.todo != "" {
		return f
	}
	var refused *net.OpError
	switch {
	case strings.Contains(f.why, "Exception (501)"): // amqp091-go's word for bytes that are no AMQP
		f.code = exitUnavailable
		defer func() { f.why = "what answers there does not speak AMQP: " + f.why }()
	case errors.As(err, &refused):
		f.code, f.why = exitUnavailable, refused.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.ECONNREFUSED):
		f.code = exitUnavailable
	}
	if f.code == exitUnavailable {
		f.what = "cannot reach the " + what + " " + url
		f.todo = "check the host and port (" + flag + "), or start a broker for development with: gelery dev"
		return f
	}
	f.todo = "check the URL (" + flag + ") and its options"
	return f
}

// admission is the advice for a server that is there and does not let us in, "" for any other error.
func admission(err error, flag string) string {
	why := err.Error()
	says := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(why, t) })
	}
	var record tls.RecordHeaderError
	switch {
	case says("WRONGPASS", "NOAUTH", "invalid password", "without any password configured", // Redis
		"username or password not allowed", "Login was refused"): // RabbitMQ
		todo := "check user and password in the URL: " + flag
		if errors.Is(err, transport.ErrDenied) {
			todo += "; RabbitMQ lets its user guest in from localhost only"
		}
		return todo
	case says("NOT_ALLOWED - vhost"): // … x not found, … x is down
		return "correct the virtual host at the end of the URL (" + flag + "), or make it: rabbitmqctl add_vhost NAME"
	case says("NOT_ALLOWED - access to vhost"):
		return "let the user in: rabbitmqctl set_permissions -p VHOST USER CONFIGURE WRITE READ"
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "name the authority that signed its certificate in the URL: ?ssl_ca_certs=/path/to/ca.pem"
	case errors.As(err, new(x509.HostnameError)):
		return "use the host name that is in its certificate: " + flag
	case errors.As(err, &record), says("first record does not look like a TLS handshake"):
		return "this port speaks no TLS: use the TLS port, or a URL scheme without TLS (" + flag + ")"
	}
	return ""
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
	return refusal(err)
}

// refusal is what a broker that works did not want to do.
func refusal(err error) *failure {
	f := &failure{code: exitFailed, what: err.Error()}
	switch {
	case errors.Is(err, transport.ErrMismatch):
		return mismatch(f.what)
	case strings.Contains(f.what, "in exclusive use"), strings.Contains(f.what, "RESOURCE_LOCKED"):
		f.what, f.why = "somebody else has the queue for himself alone", f.what
		f.todo = "wait until he is done, or end the connection that uses it: rabbitmqctl list_consumers tells who consumes"
	case errors.Is(err, transport.ErrDenied):
		f.what, f.why = "the broker does not permit it", f.what
		f.todo = "give the user the right: rabbitmqctl set_permissions on RabbitMQ, ACL SETUSER on Redis"
	case errors.Is(err, transport.ErrNoRoute):
		f.what, f.why = "the message has nowhere to go", f.what
		f.todo = "start a worker that serves the queue, or declare it: gelery amqp queue.declare"
	case errors.Is(err, transport.ErrBrokerFull):
		f.what, f.why = "the broker takes no messages now", f.what
		f.todo = "gelery doctor tells why; let workers empty the queues, or give the broker more memory or disk"
	case errors.Is(err, transport.ErrRefused):
		f.what, f.why = "the broker refused the message", f.what
		f.todo = "its queue may be full or without a majority, or the message too large; gelery doctor tells more about queues"
	}
	return f
}

// RabbitMQ's words: inequivalent arg 'x-max-priority' for queue 'q' in vhost '/': received none but current is the value
// '10' of type 'long'.
var (
	inequivalent = regexp.MustCompile(`inequivalent arg '(.*?)' for (queue|exchange) '(.*?)' in vhost '.*?': ` +
		`received (.+?) but current is (.+)$`)
	argumentValue = regexp.MustCompile(`^(?:the value )?'(.*?)'(?: of type '\w+')?$`)
)

// mismatch explains a queue or exchange that exists with other properties than those it is declared with.
func mismatch(text string) *failure {
	f := &failure{exitFailed, "a queue or exchange exists with other properties", text,
		"declare it with the arguments it has, or delete it and let it be declared anew: gelery amqp queue.delete or exchange.delete"}
	m := inequivalent.FindStringSubmatch(text)
	if m == nil {
		return f
	}
	arg, kind, name := m[1], m[2], printable(m[3])
	value := func(s string) string { return argumentValue.ReplaceAllString(s, "$1") }
	asked, has := value(m[4]), value(m[5])
	f.what = fmt.Sprintf("%s %s exists with another %s", kind, name, arg)
	f.why = fmt.Sprintf("it has %s %s, and was declared with %s", arg, has, asked)
	with := "with " + arg + " " + has
	if has == "none" {
		with = "without " + arg
	}
	f.todo = fmt.Sprintf("declare it %s, as everybody who shares it must, or delete it: gelery amqp %s.delete %s",
		with, kind, name)
	return f
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
