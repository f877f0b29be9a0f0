package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// TestRabbitMQKeepsUsOut: each way gets its own advice, and no password is shown.
func TestRabbitMQKeepsUsOut(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	s.Manage("PUT", "/api/users/outsider", `{"password":"guest","tags":""}`)
	t.Cleanup(func() { s.Manage("DELETE", "/api/users/outsider", "") })
	mail, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	greeter := make(chan struct{})
	go func() { // a mail server, which speaks first
		defer close(greeter)
		for {
			conn, err := mail.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "220 mail.example ESMTP\r\n")
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = mail.Close(); <-greeter })
	replace := func(from, to string) string { return strings.Replace(s.URL, from, to, 1) }
	tests := []struct {
		name, url, why, todo string
		code                 int
	}{
		{"password", replace("guest:guest@", "guest:secret@"), "Login was refused", "check user and password in the URL", exitFailed},
		{"no virtual host", replace(s.URL[strings.LastIndex(s.URL, "/"):], "/none"), "vhost none not found", "correct the virtual host", exitFailed},
		{"no access", replace("guest:", "outsider:"), "refused for user 'outsider'", "let the user in: rabbitmqctl set_permissions", exitFailed},
		{"no TLS there", replace("amqp://", "amqps://"), "does not look like a TLS handshake", "this port speaks no TLS", exitFailed},
		{"nobody there", replace(s.Addr, "127.0.0.1:1"), "connection refused", "check the host and port", exitUnavailable},
		{"no AMQP there", replace(s.Addr, mail.Addr().String()), "does not speak AMQP", "check the host and port", exitUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := run{args: []string{"-b", tt.url, "queues", "-Q", "celery"}}.do(t)
			if code != tt.code || stdout != "" || strings.Count(stderr, "\n") != 3 || strings.Contains(stderr, "secret") ||
				!strings.Contains(stderr, tt.why) || !strings.Contains(stderr, "\n  try: "+tt.todo) {
				t.Errorf("exit code %d, want %d; want %q and %q in\n%s", code, tt.code, tt.why, tt.todo, stderr)
			}
		})
	}
}

func TestRefusal(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err  error
		want failure
	}{
		{fmt.Errorf("queue %q: %w: PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'my mail' in vhost 'it''s/': "+
			"received the value 'classic' of type 'longstr' but current is the value 'quorum' of type 'longstr'", "my mail", transport.ErrMismatch),
			failure{exitFailed, "queue my mail exists with another x-queue-type", "it has x-queue-type quorum, and was declared with classic",
				"declare it with x-queue-type quorum, as everybody who shares it must, or delete it: gelery amqp queue.delete my mail"}},
		{fmt.Errorf("queue: %w: something new", transport.ErrMismatch),
			failure{exitFailed, "a queue or exchange exists with other properties", "queue: it exists with other properties: something new",
				"declare it with the arguments it has, or delete it and let it be declared anew: gelery amqp queue.delete or exchange.delete"}},
		{fmt.Errorf("purge: %w: because", transport.ErrDenied),
			failure{exitFailed, "the broker does not permit it", "purge: not permitted: because",
				"give the user the right: rabbitmqctl set_permissions on RabbitMQ, ACL SETUSER on Redis"}},
		{fmt.Errorf("%w: RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'", transport.ErrDenied),
			failure{exitFailed, "somebody else has the queue for himself alone",
				"not permitted: RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'",
				"wait until he is done, or end the connection that uses it: rabbitmqctl list_consumers tells who consumes"}},
		{fmt.Errorf("%w: ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use", transport.ErrDenied),
			failure{exitFailed, "somebody else has the queue for himself alone",
				"not permitted: ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use",
				"wait until he is done, or end the connection that uses it: rabbitmqctl list_consumers tells who consumes"}},
		{fmt.Errorf("%w: PRECONDITION_FAILED - message size 3000 is larger than configured max size 2000", transport.ErrRefused),
			failure{exitFailed, "the broker refused the message",
				"broker refused the message: PRECONDITION_FAILED - message size 3000 is larger than configured max size 2000",
				"its queue may be full or without a majority, or the message too large; gelery doctor tells more about queues"}},
		{errors.New("other"), failure{exitFailed, "other", "", ""}},
	}
	for _, tt := range tests {
		if d := cmp.Diff(tt.want, *refusal(tt.err), cmp.AllowUnexported(failure{})); d != "" {
			t.Errorf("%v: %s", tt.err, d)
		}
	}
}
