package worker

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// neighbour starts another worker on the site's broker, with what it logs.
func (s *site) neighbour(name string, mux *Mux) *lines {
	s.Helper()
	log := &lines{}
	w, err := New(s.client, mux, Config{Hostname: name, Queues: []string{"queue-of-" + name}, HeartbeatInterval: time.Second,
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	s.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.Error(err)
		}
	})
	select {
	case <-w.Consuming():
	case err := <-done:
		done <- err
		s.Fatalf("%s ended: %v", name, err)
	}
	return log
}

// tell broadcasts an event of somebody's.
func (s *site) tell(body string) {
	s.Helper()
	m := protocol.NewEventMessage("", []byte(body))
	if err := s.client.Transport().Broadcast(s.context(), protocol.EventExchange, "worker.x", m); err != nil {
		s.Fatal(err)
	}
}

// meets tells of a node until a worker has heard of it, for which the worker must have subscribed. It is alive for minutes then.
func (s *site) meets(log *lines, node string) {
	s.Helper()
	s.eventually(node+" has joined", func() bool {
		s.tell(`{"type": "worker-heartbeat", "hostname": "` + node + `", "freq": 60, "clock": 1000}`)
		return log.count(node+" joined the party") > 0
	})
}

// TestElection: of all that are asked to do something, one does it.
func TestElection(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	done := make(chan string, 9)
	s.mux.Func("elected", func(_ context.Context, by string) error { done <- by; return nil })
	var logs []*lines
	for i := range 3 {
		logs = append(logs, s.neighbour(fmt.Sprintf("n%d@box", i), NewMux()))
	}
	s.start(Config{})
	for i, log := range logs {
		s.eventually("each has met the others", func() bool {
			met := 0
			for j := range logs {
				met += min(1, log.count(fmt.Sprintf("n%d@box joined the party", j)))
			}
			return met == len(logs)-1 && log.count(fmt.Sprintf("n%d@box joined", i)) == 0
		})
	}
	m := s.mailbox()
	wire, err := task.S("elected", "anybody").Wire()
	if err != nil {
		t.Fatal(err)
	}
	r := m.request("election", map[string]any{"id": "one", "topic": "task", "action": wire.Value()})
	r.Destination, r.ReplyTo = []string{"n0@box", "n1@box", "n2@box"}, protocol.PidboxReplyTo{}
	m.broadcast(r)
	await(t, done, "the task")
	for _, log := range logs {
		s.eventually("each knows the winner", func() bool {
			return log.count("I won the election 'one'")+log.count("elected for 'one'") == 1
		})
	}
	won := 0
	for _, log := range logs {
		won += log.count("I won the election")
	}
	if _, err := s.send("tasks.add", 1, 2).Get(s.context()); err != nil || won != 1 || len(done) != 0 {
		t.Errorf("%d have won, the task has run %d times, %v", won, 1+len(done), err)
	}
}

// TestElectionAlone: a worker without neighbours elects itself; Celery's ends with an IndexError.
func TestElectionAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	log := s.neighbour("n0@box", NewMux())
	s.start(Config{DisableGossip: true})
	s.meets(log, "gone@box") // or it might not hear that it is a candidate itself
	s.tell(`{"type": "worker-offline", "hostname": "gone@box", "clock": 1001}`)
	s.eventually("it is alone", func() bool { return log.count("gone@box left") > 0 })
	m := s.mailbox()
	for topic, want := range map[string]string{"task": "signature", "no such": "unknown election topic"} {
		r := m.request("election", map[string]any{"id": topic, "topic": topic, "action": 7})
		r.Destination, r.ReplyTo = []string{"n0@box"}, protocol.PidboxReplyTo{}
		m.broadcast(r)
		s.eventually("it has won", func() bool { return log.count("I won the election '"+topic+"'") == 1 })
		s.eventually("it says what is wrong: "+want, func() bool { return log.count(want) > 0 })
	}
	r := m.request("election", map[string]any{"id": "1", "topic": "task"})
	r.Destination = []string{s.worker.Hostname()} // which takes no part
	m.broadcast(r)
	if got := m.answer(); got != nil {
		t.Errorf("the answer is %v", got)
	}
}

// TestGossip: who is heard, leaves or is lost, and events that no honest worker sends.
func TestGossip(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	log := &lines{}
	s.start(Config{Hostname: "w1@box", Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	s.meets(log, "other@box")
	if now := s.worker.clock.Load(); now < 1000 {
		t.Errorf("the clock is %d", now)
	}
	s.tell(`{"type": "worker-offline", "hostname": "other@box", "clock": 1001}`)
	s.eventually("it has left", func() bool { return log.count("other@box left") == 1 })
	for _, odd := range []string{``, `7`, `[]`, `[7, {}]`, `{}`, `{"type": 7}`, `{"type": "worker-heartbeat"}`, `{"type": "worker-elect"}`,
		`{"type": "worker-elect", "id": 7, "hostname": "x"}`, `{"type": "worker-elect", "id": "a", "hostname": "x", "clock": "x", "pid": [], "action": [[[]]]}`,
		`{"type": "worker-elect-ack"}`, `{"type": "worker-elect-ack", "id": "unknown", "hostname": "x"}`,
		`{"type": "worker-heartbeat", "hostname": "y", "freq": 1e300, "clock": 1e300}`, `{"type": "worker-heartbeat", "hostname": "z", "freq": -5, "clock": -1}`,
		`{"type": "worker-heartbeat", "hostname": "nan", "freq": NaN, "clock": NaN, "timestamp": Infinity}`} {
		s.tell(odd)
	}
	s.meets(log, "last@box")
	if _, err := s.send("tasks.add", 1, 2).Get(s.context()); err != nil {
		t.Error(err)
	}
}

// What others tell takes no more room than it may.
func TestGossipBounds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w, err := New(s.client, s.mux, Config{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i := range maxPeers + 10 {
		w.gossip.meet(&protocol.Event{Type: protocol.WorkerHeartbeat, Hostname: fmt.Sprint(i)}, now)
	}
	for i := range maxElections + 10 {
		w.gossip.elections.candidate(&protocol.Event{Type: protocol.WorkerElect, Hostname: "x", Fields: []protocol.EventField{{Name: "id", Value: fmt.Sprint(i)}}})
	}
	for range maxCandidates + 10 {
		w.gossip.elections.candidate(&protocol.Event{Type: protocol.WorkerElect, Hostname: "x", Fields: []protocol.EventField{{Name: "id", Value: "0"}}})
	}
	if p, e, c := len(w.gossip.peers), len(w.gossip.elections.all), len(w.gossip.elections.all["0"].candidates); p != maxPeers || e != maxElections || c != maxCandidates {
		t.Errorf("%d peers, %d elections, %d candidates", p, e, c)
	}
	stood := 0
	for i := range maxElections {
		if w.gossip.elections.stand(fmt.Sprint(i), &duty{"task", nil, maxAction}) {
			stood++
		}
	}
	if stood != maxActions/maxAction {
		t.Errorf("what is to be done is kept of %d elections, each of %d bytes", stood, maxAction)
	}
	w.gossip.lose(now.Add(3 * usualFreq))
	w.gossip.elections.close(t.Context(), now.Add(2*electionEnds))
	if len(w.gossip.peers)+len(w.gossip.elections.all)+w.gossip.elections.actions != 0 {
		t.Error("they are kept for ever")
	}
}

// TestElectionsFull: elections that others have made up keep none from an honest one, and every candidate is answered.
func TestElectionsFull(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w, err := New(s.client, s.mux, Config{})
	if err != nil {
		t.Fatal(err)
	}
	e := &w.gossip.elections
	stands := func(id string) *protocol.Event {
		return &protocol.Event{Type: protocol.WorkerElect, Hostname: "x", Fields: []protocol.EventField{{Name: "id", Value: id}}}
	}
	e.stand("ours", &duty{topic: "task"})
	for i := range maxElections {
		e.candidate(stands(fmt.Sprint(i)))
	}
	e.candidate(stands("honest"))
	if e.all["ours"] == nil || e.all["honest"] == nil || len(e.all) != maxElections || !e.stand("honest", &duty{topic: "task"}) {
		t.Errorf("of %d elections ours is %v, the honest one %v", len(e.all), e.all["ours"], e.all["honest"])
	}
	for i := range maxElections {
		e.stand(fmt.Sprint("own ", i), &duty{topic: "task"}) // until there is a duty in each
	}
	if e.candidate(stands("late")); e.all["late"] != nil || len(e.all) != maxElections {
		t.Error("an election of others has taken the place of one with a duty")
	}
	sent := 0
	for _, m := range w.events.waiting {
		sent += strings.Count(string(m.body), protocol.WorkerElectAck)
	}
	if want := maxElections + 1; sent != want { // all but the honest one, whose turn comes
		t.Errorf("%d candidates are answered; expected %d", sent, want)
	}
}

// TestMingleOfTwo: one that starts learns what its neighbours know as revoked, and tells them what it knows.
func TestMingleOfTwo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{Hostname: "first@box"})
	s.worker.revoked.add(transport.RevokedSet, []revocation{{"revoked-at-first", time.Now()}}, false) // which the broker is not told
	knows := func(w *Worker, id string) bool {
		_, yes := w.revoked.holds(&protocol.Request{Headers: protocol.Headers{ID: id}})
		return yes
	}
	second, err := New(s.client, NewMux(), Config{Hostname: "second@box", Queues: []string{"other"}})
	if err != nil {
		t.Fatal(err)
	}
	second.revoked.add(transport.RevokedSet, []revocation{{"revoked-at-second", time.Now()}}, false) // which the broker is not told
	ctx, cancel := context.WithCancel(s.context())
	done := make(chan error, 1)
	go func() { done <- second.Run(ctx) }()
	s.eventually("it has learnt", func() bool { return knows(second, "revoked-at-first") })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s.eventually("the first has heard of it", func() bool { return knows(s.worker, "revoked-at-second") })
}

// TestMingleKeepsAges: what neighbours tell each other is forgotten in its time, however often workers start.
func TestMingleKeepsAges(t *testing.T) {
	t.Parallel()
	w := &Worker{log: slog.New(slog.DiscardHandler), config: Config{RevokesMax: 10, RevokeExpires: time.Hour}}
	w.revoked = newRevoked(w)
	ago := func(d time.Duration) []any { return []any{unixSeconds(time.Now().Add(-d)), "id"} }
	w.revoked.heard(transport.RevokedSet, "known")
	<-w.revoked.stale
	known := w.revoked.ids.all()["known"]
	w.revoked.unkept = map[string][]string{}
	w.revoked.learn(map[string]any{"known": ago(0)})
	w.revoked.learn(map[string]any{"known": ago(-time.Minute)})
	w.revoked.learn(map[string]any{"known": []any{12.5, "known"}})
	if len(w.revoked.stale) != 0 || len(w.revoked.unkept[transport.RevokedSet]) != 0 || !w.revoked.ids.all()["known"].Equal(known) {
		t.Error("what is known is taken in again")
	}
	began := time.Now()
	for range 2 { // as two neighbours tell it
		w.revoked.learn(map[string]any{"young": ago(59 * time.Minute), "old": ago(61 * time.Minute), "ahead": ago(-time.Minute),
			"python": []any{12.5, "python"}, "odd": nil, "endless": []any{math.Inf(1), "endless"}, "": nil})
	}
	ids := w.revoked.ids.all()
	if age := began.Sub(ids["young"]); age < 58*time.Minute || age > time.Hour {
		t.Errorf("what was revoked 59 minutes ago is as of %v ago", age)
	}
	for _, now := range []string{"ahead", "python", "odd", "endless"} {
		if at := ids[now]; at.Before(began) || at.After(time.Now()) {
			t.Errorf("%s is as of %v", now, at)
		}
	}
	told := w.revoked.unkept[transport.RevokedSet]
	slices.Sort(told)
	if got := strings.Join(told, " "); len(ids) != 6 || got != "endless odd python" {
		t.Errorf("it knows %v, and tells the broker %q", ids, got)
	}
}

// TestHelloAtRevokesMax: a neighbour that tells all that may be revoked is heard, and told the newest.
func TestHelloAtRevokesMax(t *testing.T) {
	t.Parallel()
	w := &Worker{log: slog.New(slog.DiscardHandler), config: Config{RevokesMax: transport.DefaultRevokedBounds.Members, RevokeExpires: time.Hour}}
	w.revoked = newRevoked(w)
	now := time.Now()
	ids := make(map[string]any, w.config.RevokesMax)
	for i := range w.config.RevokesMax {
		id := fmt.Sprintf("%036d", i)
		ids[id] = []any{unixSeconds(now.Add(time.Duration(i-w.config.RevokesMax) * time.Millisecond)), id}
	}
	r := &protocol.PidboxRequest{Method: "hello", Arguments: map[string]any{"from_node": "x", "revoked": ids}}
	m, err := r.Message(serialization.JSON)
	if err != nil || len(m.Body) < 4<<20 {
		t.Fatalf("%d bytes, %v", len(m.Body), err)
	}
	heard, err := protocol.DecodePidbox(m, serialization.Accept{})
	if err != nil {
		t.Fatal(err)
	}
	w.revoked.learn(heard.Arguments["revoked"])
	told := w.revoked.told()
	if n := w.revoked.ids.len(); n != w.config.RevokesMax || len(told) != maxTold || told[fmt.Sprintf("%036d", n-1)] == nil || told[fmt.Sprintf("%036d", n-maxTold)] == nil {
		t.Errorf("%d are known, %d told", n, len(told))
	}
	r.Method = "revoke"
	if m, err = r.Message(serialization.JSON); err == nil {
		_, err = protocol.DecodePidbox(m, serialization.Accept{})
	}
	if err == nil {
		t.Error("another command may be as long")
	}
}
