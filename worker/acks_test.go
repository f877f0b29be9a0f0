package worker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// ledger is a broker that notes how each message was settled.
type ledger struct {
	transport.Transport
	transport.Inspector

	mu       sync.Mutex
	verdicts map[string]transport.Verdict
}

func (b *ledger) Consume(ctx context.Context, o transport.ConsumeOptions) (transport.Consumer, error) {
	c, err := b.Transport.Consume(ctx, o)
	return &ledgerConsumer{c, b}, err
}

type ledgerConsumer struct {
	transport.Consumer
	b *ledger
}

func (c *ledgerConsumer) Settle(ctx context.Context, batch []transport.Settlement) (int, error) {
	c.b.mu.Lock()
	for _, s := range batch {
		c.b.verdicts[s.Delivery.Message.Headers.ID] = s.Verdict
	}
	c.b.mu.Unlock()
	return c.Consumer.Settle(ctx, batch)
}

// TestAcknowledgement runs the settings through the ways a run can fail.
func TestAcknowledgement(t *testing.T) {
	t.Parallel()
	no, yes := false, true
	tests := []struct {
		name    string
		config  Config
		task    string
		options []task.DefineOption
		want    transport.Verdict
		state   protocol.State
	}{
		{"failure", Config{}, "fail", nil, transport.Ack, protocol.Failure},
		{"failure, off for all", Config{AckOnFailure: &no}, "fail", nil, transport.Reject, protocol.Failure},
		{"failure, off for the task", Config{}, "fail", []task.DefineOption{task.AckOnFailure(false)}, transport.Reject, protocol.Failure},
		{"failure, on for the task", Config{AckOnFailure: &no}, "fail", []task.DefineOption{task.AckOnFailure(true)}, transport.Ack, protocol.Failure},
		{"failure, timeouts off", Config{AckOnTimeout: &no, AckOnFailure: &yes}, "fail", nil, transport.Ack, protocol.Failure},
		{"failure, early", Config{AckOnFailure: &no, AckEarly: true}, "fail", nil, transport.Ack, protocol.Failure},
		{"failure, late for the task", Config{AckOnFailure: &no, AckEarly: true}, "fail", []task.DefineOption{task.AckLate()}, transport.Reject, protocol.Failure},
		{"expected failure", Config{AckOnFailure: &no}, "fail", []task.DefineOption{task.Throws(errKaput)}, transport.Reject, protocol.Failure},
		{"hard limit", Config{TimeLimit: 10 * time.Millisecond}, "wait", nil, transport.Ack, protocol.Failure},
		{"hard limit, off", Config{TimeLimit: 10 * time.Millisecond, AckOnTimeout: &no}, "wait", nil, transport.Reject, protocol.Failure},
		{"soft limit, off for the task", Config{SoftTimeLimit: 10 * time.Millisecond}, "wait", []task.DefineOption{task.AckOnTimeout(false)}, transport.Reject, protocol.Failure},
		{"soft limit, failures off", Config{SoftTimeLimit: 10 * time.Millisecond, AckOnFailure: &no}, "wait", nil, transport.Ack, protocol.Failure},
		{"success", Config{AckOnFailure: &no, AckOnTimeout: &no}, "work", nil, transport.Ack, protocol.Success},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			whole := s.client.Transport()
			b := &ledger{Transport: whole, Inspector: whole.(transport.Inspector), verdicts: map[string]transport.Verdict{}}
			client, err := task.NewClient(b, s.client.Backend(), s.client.Config())
			if err != nil {
				t.Fatal(err)
			}
			s.client = client
			s.mux.Func("fail", func() error { return errKaput }, tt.options...)
			s.mux.Func("wait", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, tt.options...)
			s.mux.Func("work", func() error { return nil }, tt.options...)
			tt.config.Concurrency = 1
			s.start(tt.config)
			id := s.send(tt.task).ID()
			s.ready(id, tt.state)
			s.settled()
			if got := b.verdicts[id]; got != tt.want {
				t.Errorf("settled with %v; want %v", got, tt.want)
			}
		})
	}
}

var errKaput = errors.New("kaput")

// TestErrorsOfIgnoredResults: with the setting they are stored, results are not.
func TestErrorsOfIgnoredResults(t *testing.T) {
	t.Parallel()
	for _, store := range []bool{false, true} {
		s := newSite(t)
		s.mux.Func("fail", func() error { return errKaput }, task.IgnoreResult(true))
		s.mux.Func("again", func() error { return task.Retry(errKaput, task.Countdown(time.Hour)) }, task.IgnoreResult(true))
		s.mux.Func("work", func() error { return nil }, task.IgnoreResult(true))
		s.start(Config{Concurrency: 1, StoreErrorsEvenIfIgnored: store})
		want := map[string]protocol.State{s.send("fail").ID(): protocol.Failure, s.send("again").ID(): protocol.Retry}
		work := s.send("work").ID()
		expired, err := s.client.Send(s.context(), "work", nil, nil, task.ExpiresAt(time.Unix(1, 0)))
		if err != nil {
			t.Fatal(err)
		}
		unknown, err := s.client.Send(s.context(), "no.such", nil, nil, task.IgnoreResult(true))
		if err != nil {
			t.Fatal(err)
		}
		want[expired.ID()], want[unknown.ID()] = protocol.Revoked, protocol.Failure
		if _, err := s.send("tasks.add", 1, 2).Get(s.context()); err != nil { // behind all others
			t.Fatal(err)
		}
		if err := s.end(); err != nil {
			t.Fatal(err)
		}
		want[work] = protocol.Pending
		for id, state := range want {
			if !store {
				state = protocol.Pending
			}
			m, err := s.client.Backend().Get(s.context(), id)
			if err != nil || m.Status != state {
				t.Errorf("with %v: %+v, %v; want %s", store, m, err, state)
			}
		}
	}
}

// TestExpectedErrors: they are stored as what they are.
func TestExpectedErrors(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("marked", func() error { return task.Expected(task.AsPython(errKaput, "shop.errors", "Declined")) })
	s.mux.Func("plain", func() error { return task.Expected(errKaput) })
	s.start(Config{Concurrency: 1})
	if e := s.failure(s.send("marked")); e.Type != "Declined" || e.Module != "shop.errors" {
		t.Errorf("failed with %v", e)
	}
	if e := s.failure(s.send("plain")); e.Type != "Exception" || e.Message != "kaput" {
		t.Errorf("failed with %v", e)
	}
	s.settled()
	if task.Expected(nil) != nil {
		t.Error("an expected nothing is an error")
	}
}
