package rpc

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// TestReplyQueueThatTakesNothing has a client's reply queue refuse every reply, or confirm none. The worker's Store does
// not wait for it, others get their results, and the next time it costs next to nothing.
func TestReplyQueueThatTakesNothing(t *testing.T) {
	t.Parallel()
	for name, theirs := range map[string]transport.Queue{
		"full":   {Name: "theirs", Unbound: true, Arguments: map[string]any{"x-max-length": 1, "x-overflow": "reject-publish"}},
		"silent": {Name: "theirs", Unbound: true, Arguments: map[string]any{"x-queue-type": "quorum"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testservice.RabbitMQ(t)
			tr := connect(t, server.URL)
			var log bytes.Buffer
			client := open(t, tr, backends.Options{})
			worker := open(t, tr, backends.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			if err := tr.Declare(deadline(t), theirs); err != nil {
				t.Fatal(err)
			}
			store(t, worker, success("fits", "theirs"))
			if name == "silent" {
				process := fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"%s">>, queue, <<"theirs">>)), {N, _} = amqqueue:get_pid(Q)`, server.Vhost)
				server.Eval(process + ", sys:suspend(N)")
				defer server.Eval(process + ", sys:resume(N)")
			}
			replyTo := expect(t, client, "good", "better")
			for i, id := range []string{"good", "better"} {
				batch := []*protocol.ResultMeta{success("bad", "theirs"), success(id, replyTo), success("worse", "theirs")}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				start := time.Now()
				if err := worker.Store(ctx, batch); err != nil {
					t.Fatalf("store %d: %v", i, err)
				}
				cancel()
				took := time.Since(start)
				t.Logf("stored after %v", took)
				if i == 1 && took > time.Second {
					t.Errorf("it took %v again", took)
				}
				if m, err := await(t, client, id); err != nil || m.Result != int64(1) {
					t.Errorf("%s: %+v, %v", id, m, err)
				}
			}
			if n := strings.Count(log.String(), "result was not sent"); n != 2 {
				t.Errorf("of two times it was logged %d times that a queue refuses:\n%s", n, &log)
			}
		})
	}
}

// TestRefusingQueueIsForgiven empties a reply queue that was full.
func TestRefusingQueueIsForgiven(t *testing.T) {
	t.Parallel()
	tr := connect(t, testservice.RabbitMQ(t).URL)
	b := open(t, tr, backends.Options{})
	theirs := transport.Queue{Name: "theirs", Unbound: true, Arguments: map[string]any{"x-max-length": 1, "x-overflow": "reject-publish"}}
	if err := tr.Declare(deadline(t), theirs); err != nil {
		t.Fatal(err)
	}
	store(t, b, success("fits", "theirs"))
	store(t, b, success("refused", "theirs"))
	if !b.refuses("theirs") {
		t.Error("it is not known to refuse")
	}
	if _, err := tr.(transport.Inspector).Purge(deadline(t), "theirs"); err != nil {
		t.Fatal(err)
	}
	store(t, b, success("fits again", "theirs"))
	if b.refuses("theirs") {
		t.Error("it is still known to refuse")
	}
}
