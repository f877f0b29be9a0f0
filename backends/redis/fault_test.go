package redis

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
)

// until waits for a condition that no event tells of.
func until(t *testing.T, f func() bool, what string) {
	t.Helper()
	ctx := deadline(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never came true: %s", what)
		}
	}
}

// watchAll ranges over a Watch in the background. It tells when all tasks are known to be pending, and at the end the
// error or nil, and how many succeeded.
func watchAll(ctx context.Context, b *Backend, ids []string) (pending chan struct{}, done chan error) {
	pending, done = make(chan struct{}), make(chan error, 1)
	go func() {
		waiting, succeeded := map[string]bool{}, map[string]bool{}
		for m, err := range b.Watch(ctx, ids...) {
			switch {
			case err != nil:
				done <- err
				return
			case m.Status == protocol.Success:
				succeeded[m.TaskID] = true
			case m.Status == protocol.Pending && !waiting[m.TaskID]:
				if waiting[m.TaskID] = true; len(waiting) == len(ids) {
					close(pending)
				}
			default:
				done <- fmt.Errorf("%s is %s", m.TaskID, m.Status)
				return
			}
		}
		if len(succeeded) != len(ids) {
			done <- fmt.Errorf("%d of %d succeeded", len(succeeded), len(ids))
			return
		}
		done <- nil
	}()
	return pending, done
}

func ids(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint("task-", i)
	}
	return list
}

func successes(ids []string) []*protocol.ResultMeta {
	batch := make([]*protocol.ResultMeta, len(ids))
	for i, id := range ids {
		batch[i] = success(id)
	}
	return batch
}

// The faults strike a client that waits, while a worker with a good connection stores. Whatever happens to the
// client's connection, it hears of the end.
func TestWatchSurvivesFaults(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		before, after func(p *testservice.Proxy) // around the storing
	}{
		{"cut before", func(p *testservice.Proxy) { p.Cut() }, func(*testservice.Proxy) {}},
		{"cut after", func(*testservice.Proxy) {}, func(p *testservice.Proxy) { p.Cut() }},
		{"away meanwhile", func(p *testservice.Proxy) { p.Down() }, func(p *testservice.Proxy) { p.Up() }},
		{"half open meanwhile, then cut", func(p *testservice.Proxy) { p.Pause() }, func(p *testservice.Proxy) { p.Cut(); p.Resume() }},
		{"replies lost", func(p *testservice.Proxy) { p.DropReplies(5) }, func(p *testservice.Proxy) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := testservice.StartRedis(t)
			p := testservice.NewProxy(t, s.Addr)
			client := open(t, "redis://"+p.Addr+"/0", backends.Options{})
			worker := open(t, s.URL, backends.Options{})
			tasks := ids(700)
			pending, done := watchAll(deadline(t), client, tasks)
			select {
			case <-pending:
			case err := <-done:
				t.Fatal(err)
			}
			tt.before(p)
			if err := worker.Store(deadline(t), successes(tasks)); err != nil {
				t.Fatal(err)
			}
			tt.after(p)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestWatchStartedWhileAway(t *testing.T) {
	t.Parallel()
	s := testservice.StartRedis(t)
	p := testservice.NewProxy(t, s.Addr)
	client, worker := open(t, "redis://"+p.Addr+"/0", backends.Options{}), open(t, s.URL, backends.Options{})
	p.Down()
	_, done := watchAll(deadline(t), client, ids(1200))
	l := client.listener
	until(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.topics) > 0
	}, "it waits")
	if err := worker.Store(deadline(t), successes(ids(600))); err != nil {
		t.Fatal(err)
	}
	p.Up()
	if err := worker.Store(deadline(t), successes(ids(1200))); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestWatchSurvivesCutsAllTheWay(t *testing.T) {
	t.Parallel()
	s := testservice.StartRedis(t)
	p := testservice.NewProxy(t, s.Addr)
	client, worker := open(t, "redis://"+p.Addr+"/0", backends.Options{}), open(t, s.URL, backends.Options{})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(60 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				p.Cut()
			}
		}
	}()
	for round := range 8 {
		tasks := ids(50)
		for i := range tasks {
			tasks[i] = fmt.Sprint(round, tasks[i])
		}
		_, done := watchAll(deadline(t), client, tasks)
		for _, m := range successes(tasks) {
			if err := worker.Store(deadline(t), []*protocol.ResultMeta{m}); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
	close(stop)
	<-stopped
}

func TestServerRestart(t *testing.T) {
	t.Parallel()
	s := testservice.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	client, worker := open(t, s.URL, backends.Options{}), open(t, s.URL, backends.Options{})
	tasks := ids(20)
	pending, done := watchAll(deadline(t), client, tasks)
	<-pending
	if err := worker.Store(deadline(t), successes(tasks[:10])); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	stored := make(chan error, 1)
	go func() { stored <- worker.Store(deadline(t), successes(tasks[10:])) }()
	until(t, func() bool { return client.listener.isLost() }, "the client notices")
	s.Restart()
	if err := <-stored; err != nil {
		t.Errorf("store over a restart: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("watch over a restart: %v", err)
	}
}

// isLost reports whether no subscription is known to be in force.
func (l *listener) isLost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.confirmed) == 0
}

func TestStoreWithLostReply(t *testing.T) {
	t.Parallel()
	s := testservice.StartRedis(t)
	p := testservice.NewProxy(t, s.Addr)
	b := open(t, "redis://"+p.Addr+"/0", backends.Options{})
	p.DropReplies(1)
	if err := b.Store(deadline(t), successes(ids(10))); err != nil {
		t.Fatal(err)
	}
	if m, err := b.Get(deadline(t), "task-9"); err != nil || m.Status != protocol.Success {
		t.Errorf("%v %v", m, err)
	}
}

func TestFullServer(t *testing.T) {
	t.Parallel()
	s := testservice.StartRedis(t)
	b, c := open(t, s.URL, backends.Options{}), raw(t, s.URL)
	ctx := deadline(t)
	if err := c.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	brief, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	err := b.Store(brief, successes(ids(1)))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("full: %v", err)
	}
	stored := make(chan error, 1)
	go func() { stored <- b.Store(ctx, successes(ids(1))) }()
	if err := c.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if err := <-stored; err != nil {
		t.Errorf("no longer full: %v", err)
	}
}

func TestNoPermissionEndsTheWatch(t *testing.T) {
	t.Parallel()
	s := testservice.StartRedis(t)
	c, ctx := raw(t, s.URL), deadline(t)
	if err := c.Do(ctx, "ACL", "SETUSER", "u", "on", ">p", "~*", "+@all", "-subscribe").Err(); err != nil {
		t.Fatal(err)
	}
	b := open(t, "redis://u:p@"+s.Addr+"/0", backends.Options{})
	for m, err := range b.Watch(ctx, "a") {
		if err == nil {
			t.Errorf("heard %v", m)
		} else if ctx.Err() != nil {
			t.Errorf("only the context ended it: %v", err)
		}
	}
}

// A connection that swallows everything without an error is found out by its silence.
func TestSilentConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	s := testservice.StartRedis(t)
	p := testservice.NewProxy(t, s.Addr)
	client, worker := open(t, "redis://"+p.Addr+"/0", backends.Options{}), open(t, s.URL, backends.Options{})
	pending, done := watchAll(deadline(t), client, ids(3))
	<-pending
	p.Pause()
	if err := worker.Store(deadline(t), successes(ids(3))); err != nil {
		t.Fatal(err)
	}
	// As if the time had passed. steer has nothing to do now, so its part can be played here.
	l := client.listener
	l.mu.Lock()
	l.heard = time.Now().Add(-2 * deadAfter)
	old := l.pubsub
	l.mu.Unlock()
	l.checkAlive()
	l.mu.Lock()
	if l.pubsub == old {
		t.Error("the silent connection stays")
	}
	l.mu.Unlock()
	p.Resume()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
