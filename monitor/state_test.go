package monitor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// epoch is when the tests begin.
var epoch = time.Unix(1_795_000_000, 0).UTC()

// at is so many seconds later.
func at(seconds float64) time.Time { return epoch.Add(time.Duration(seconds * float64(time.Second))) }

// event makes one, with pairs of field and value.
func event(kind, hostname string, seconds float64, fields ...any) protocol.Event {
	e := protocol.Event{Type: kind, Hostname: hostname, Timestamp: at(seconds), Clock: int64(seconds * 10)}
	for i := 0; i < len(fields); i += 2 {
		e.Fields = append(e.Fields, protocol.EventField{Name: fields[i].(string), Value: fields[i+1]})
	}
	return e
}

// cluster is a State whose clock the test moves.
func cluster(t testing.TB, c StateConfig) (s *State, clock *time.Time) {
	t.Helper()
	s, err := NewState(c)
	if err != nil {
		t.Fatal(err)
	}
	now := epoch
	s.now = func() time.Time { return now }
	return s, &now
}

// life is a task that is sent, retried once on another worker, and succeeds.
func life(id string) []protocol.Event {
	received := func(worker string, seconds float64, retries int64) protocol.Event {
		return event(protocol.TaskReceived, worker, seconds, "uuid", id, "name", "tasks.add", "args", "(1, 2)", "kwargs", "{}", "root_id", id,
			"parent_id", nil, "retries", retries, "eta", nil, "expires", nil)
	}
	return []protocol.Event{
		event(protocol.TaskSent, "gen1@h", 1, "uuid", id, "name", "tasks.add", "args", "(1, 2)", "kwargs", "{}", "queue", "celery", "exchange", "",
			"routing_key", "celery", "retries", int64(0), "root_id", id, "parent_id", nil),
		received("w1@h", 2, 0),
		event(protocol.TaskStarted, "w1@h", 3, "uuid", id),
		event(protocol.TaskRetried, "w1@h", 4, "uuid", id, "exception", "OSError('x')", "traceback", "Traceback"),
		received("w2@h", 5, 1),
		event(protocol.TaskStarted, "w2@h", 6, "uuid", id),
		event(protocol.TaskSucceeded, "w2@h", 7, "uuid", id, "result", "3", "runtime", 0.5),
	}
}

func TestTaskPassesThroughItsStates(t *testing.T) {
	t.Parallel()
	s, now := cluster(t, StateConfig{})
	*now = at(7)
	want := []string{"PENDING sent", "RECEIVED reserved", "STARTED active", "RETRY retry", "RECEIVED reserved", "STARTED active", "SUCCESS ready"}
	for i, e := range life("x") {
		s.Apply([]protocol.Event{e})
		task := s.Task("x")
		if got := task.State + " " + string(task.Phase); got != want[i] {
			t.Errorf("after %s it is %s, want %s", e.Type, got, want[i])
		}
	}
	got := s.Task("x")
	expected := Task{ID: "x", Name: "tasks.add", State: "SUCCESS", Args: "(1, 2)", Kwargs: "{}", Result: "3", Exception: "OSError('x')",
		Traceback: "Traceback", Queue: "celery", RoutingKey: "celery", RootID: "x", Retries: 1, Runtime: 0.5, Worker: "w2@h", Client: "gen1@h",
		Sent: at(1), Received: at(5), Started: at(6), Retried: at(4), Succeeded: at(7), Timestamp: at(7), Clock: 70, Phase: PhaseReady}
	if d := cmp.Diff(expected, got); d != "" {
		t.Error(d)
	}
	totals := s.Totals()
	if d := cmp.Diff(map[string]Counts{"tasks.add": {Sent: 1, Received: 2, Started: 2, Succeeded: 1, Retried: 1, Runtime: 0.5}}, totals.ByType); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(map[string]int{"SUCCESS": 1}, totals.ByState); d != "" {
		t.Error(d)
	}
}

// Whatever the order of its events, and with some of them twice, a task ends as it should.
func TestEventsOutOfOrder(t *testing.T) {
	t.Parallel()
	ordered, now := cluster(t, StateConfig{})
	*now = at(7)
	ordered.Apply(life("x"))
	want := ordered.Task("x")
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		events := life("x")
		events = append(events, events[random.IntN(len(events))])
		random.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		s, now := cluster(t, StateConfig{})
		*now = at(7)
		s.Apply(events)
		if d := cmp.Diff(want, s.Task("x")); d != "" {
			types := make([]string, len(events))
			for i := range events {
				types[i] = fmt.Sprint(events[i].Type, events[i].Timestamp.Sub(epoch))
			}
			t.Fatalf("in the order %s:\n%s", strings.Join(types, " "), d)
		}
	}
}

func TestRepeatedEventsCountOnce(t *testing.T) {
	t.Parallel()
	once, _ := cluster(t, StateConfig{})
	once.Apply(life("x"))
	twice, _ := cluster(t, StateConfig{})
	for _, e := range life("x") {
		twice.Apply([]protocol.Event{e, e})
	}
	if d := cmp.Diff(once.Totals().ByType, twice.Totals().ByType); d != "" {
		t.Error(d)
	}
	if got := twice.Workers()[1].Counts; got.Succeeded != 1 || got.Received != 1 {
		t.Errorf("of the second worker %+v", got)
	}
}

// Any events may be missed: what is left tells what it can.
func TestEventsMissed(t *testing.T) {
	t.Parallel()
	for missed := range 1 << 6 {
		var events []protocol.Event
		for i, e := range life("x") {
			if missed&(1<<i) == 0 {
				events = append(events, e)
			}
		}
		s, now := cluster(t, StateConfig{})
		*now = at(7)
		s.Apply(events)
		if task := s.Task("x"); task.State != "SUCCESS" || task.Phase != PhaseReady || task.Worker != "w2@h" {
			t.Errorf("of %d events it is %+v", len(events), task)
		}
	}
}

// A retry on a worker whose clock is ahead does not hide what another does.
func TestRetryWithClocksThatDiffer(t *testing.T) {
	t.Parallel()
	s, now := cluster(t, StateConfig{})
	*now = at(7)
	s.Apply([]protocol.Event{event(protocol.TaskReceived, "w1@h", 60, "uuid", "x"), event(protocol.TaskRetried, "w1@h", 61, "uuid", "x"),
		event(protocol.TaskReceived, "w2@h", 2, "uuid", "x", "retries", int64(1))})
	if task := s.Task("x"); task.State != "RECEIVED" || task.Worker != "w2@h" {
		t.Errorf("it is %+v", task)
	}
	s.Apply([]protocol.Event{event(protocol.TaskRetried, "w2@h", 3, "uuid", "x"), event(protocol.TaskFailed, "w2@h", 2.5, "uuid", "x")})
	if task := s.Task("x"); task.State != "FAILURE" {
		t.Errorf("it is %+v", task)
	}
}

func TestPhases(t *testing.T) {
	t.Parallel()
	s, now := cluster(t, StateConfig{})
	*now = at(1)
	eta := value.FormatISO(at(100))
	s.Apply([]protocol.Event{
		event(protocol.WorkerOnline, "w1@h", 0, "freq", 2.0),
		event(protocol.TaskSent, "gen1@h", 1, "uuid", "sent"),
		event(protocol.TaskReceived, "w1@h", 1, "uuid", "eta", "eta", eta),
		event(protocol.TaskReceived, "w1@h", 1, "uuid", "reserved"),
		event(protocol.TaskStarted, "w1@h", 1, "uuid", "active"),
		event("task-progress", "w1@h", 1, "uuid", "progress"),
		event(protocol.TaskCancelled, "w1@h", 1, "uuid", "cancelled"),
		event(protocol.TaskRejected, "w1@h", 1, "uuid", "rejected"),
		event(protocol.TaskRevoked, "w1@h", 1, "uuid", "revoked"),
	})
	check := func(want map[string]Phase) {
		t.Helper()
		for id, phase := range want {
			if got := s.Task(id).Phase; got != phase {
				t.Errorf("task %s is %s, want %s", id, got, phase)
			}
		}
	}
	want := map[string]Phase{"nosuch": PhaseUnknown, "sent": PhaseSent, "eta": PhaseScheduled, "reserved": PhaseReserved, "active": PhaseActive,
		"progress": PhaseActive, "cancelled": PhaseRetry, "rejected": PhaseReady, "revoked": PhaseReady}
	check(want)
	*now = at(1 + 4) // twice its interval
	for _, id := range []string{"eta", "reserved", "active", "progress"} {
		want[id] = PhaseLost
	}
	check(want)
	if got := s.Tasks(TaskQuery{Phase: PhaseLost, Limit: 3}); len(got) != 3 || got[0].ID != "progress" || got[1].ID != "active" {
		t.Errorf("lost are %v", got)
	}
	if s.Task("progress").State != "PROGRESS" {
		t.Error("a program's own event makes no state")
	}
}

func TestWorkerIsAliveAndGoes(t *testing.T) {
	t.Parallel()
	s, now := cluster(t, StateConfig{OfflineExpires: time.Hour})
	*now = at(10)
	beat := func(kind string, seconds float64) {
		s.Apply([]protocol.Event{event(kind, "w1@h", seconds, "freq", 2.0, "active", int64(3), "processed", int64(7), "loadavg", []any{0.1, 0.2, int64(1)},
			"sw_ident", "gelery", "sw_ver", "1", "sw_sys", "Linux")})
	}
	check := func(alive, offline bool) {
		t.Helper()
		workers := s.Workers()
		if len(workers) != 1 || workers[0].Alive != alive || workers[0].Offline != offline {
			t.Errorf("workers are %+v", workers)
		}
	}
	beat(protocol.WorkerHeartbeat, 9)
	check(true, false)
	want := Worker{Hostname: "w1@h", Alive: true, Freq: 2, Active: 3, Processed: 7, LoadAvg: [3]float64{0.1, 0.2, 1}, SwIdent: "gelery", SwVer: "1",
		SwSys: "Linux", Clock: 90, Heard: at(10), Timestamp: at(9), Drift: 1}
	if d := cmp.Diff(want, s.Workers()[0]); d != "" {
		t.Error(d)
	}
	*now = at(14)
	check(false, false) // silent
	beat(protocol.WorkerHeartbeat, 14)
	check(true, false)
	beat(protocol.WorkerOffline, 15)
	check(false, true)
	beat(protocol.WorkerHeartbeat, 14.5) // which was overtaken
	check(false, true)
	beat(protocol.WorkerOnline, 16)
	check(true, false)
	beat(protocol.WorkerOffline, 17)
	*now = at(14 + 3601)
	s.Apply(nil)
	if workers := s.Workers(); len(workers) != 0 {
		t.Errorf("workers are %+v", workers)
	}
}

// One event with a wrong time hides nothing: Celery goes by when events come.
func TestWorkerWhoseClockWasWrong(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]float64{"ahead": 3600, "behind": -3600, "a little ahead": 3} {
		for _, kind := range []string{protocol.WorkerHeartbeat, protocol.WorkerOnline, protocol.WorkerOffline, protocol.TaskStarted} {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				s, now := cluster(t, StateConfig{})
				beat := func(kind string, came, sent float64, active int) {
					*now = at(came)
					s.Apply([]protocol.Event{event(kind, "w@h", sent, "freq", 1.0, "active", int64(active), "uuid", "x")})
				}
				beat(protocol.WorkerHeartbeat, 1, 1, 1)
				beat(kind, 2, 2+wrong, 2)
				for second := 3; second <= 6; second++ {
					beat(protocol.WorkerHeartbeat, float64(second), float64(second), second)
				}
				if w := s.Workers()[0]; !w.Alive || w.Offline || w.Active != 6 || w.Drift != 0 {
					t.Errorf("it is %+v", w)
				}
				if kind == protocol.TaskStarted && s.Task("x").Phase != PhaseActive {
					t.Errorf("its task is %+v", s.Task("x"))
				}
			})
		}
	}
}

func TestStateIsBounded(t *testing.T) {
	t.Parallel()
	s, _ := cluster(t, StateConfig{MaxTasks: 10, MaxWorkers: 3, MaxText: 10})
	for i := range 100 {
		s.Apply([]protocol.Event{event(protocol.TaskReceived, fmt.Sprintf("w%d@h", i), 1, "uuid", fmt.Sprint(i), "name", fmt.Sprint("t", i), "args", strings.Repeat("é", 100)),
			event(protocol.TaskStarted, "w0@h", 1, "uuid", "kept")})
	}
	totals := s.Totals()
	if totals.Tasks != 10 || totals.Workers != 3 || totals.Forgotten != 91 || len(s.Tasks(TaskQuery{})) != 10 {
		t.Errorf("totals are %+v", totals)
	}
	if task := s.Task("99"); task.Args != "ééééé..." {
		t.Errorf("the arguments are %q", task.Args)
	}
	if s.Task("kept").State != "STARTED" {
		t.Error("what was heard of just now was forgotten")
	}
	s.Clear(false)
	if totals = s.Totals(); totals.Tasks != 0 || totals.Bytes != 0 || totals.Workers != 0 || len(totals.ByState) != 0 {
		t.Errorf("after Clear totals are %+v", totals)
	}
	few, _ := cluster(t, StateConfig{MaxBytes: 5000})
	for i := range 100 {
		few.Apply([]protocol.Event{event(protocol.TaskReceived, "w@h", 1, "uuid", fmt.Sprint(i), "args", strings.Repeat("x", 1000))})
	}
	if totals := few.Totals(); totals.Bytes > 5000 || totals.Tasks < 2 {
		t.Errorf("totals are %+v", totals)
	}
}

// What has not the fields an event must have, or has them of another kind, does no harm.
func TestOddEvents(t *testing.T) {
	t.Parallel()
	s, _ := cluster(t, StateConfig{})
	odd := []any{nil, int64(-1), int64(1) << 62, -1.5, "", "x", strings.Repeat("y", 100_000), []any{}, []any{nil, "x", []any{}, 1.0}, map[string]any{"a": nil}, true}
	for _, kind := range []string{"", "-", "worker", "task", "task-", "worker-", protocol.WorkerHeartbeat, protocol.WorkerOffline, protocol.TaskSent, protocol.TaskReceived, protocol.TaskFailed, protocol.TaskSucceeded, "x-y",
		"task-" + strings.Repeat("z", 10_000)} {
		for _, host := range []string{"", "w@h", strings.Repeat("h", 100_000)} {
			for _, v := range odd {
				var fields []any
				for _, name := range []string{"uuid", "name", "args", "kwargs", "result", "exception", "traceback", "eta", "expires", "retries", "runtime", "root_id",
					"parent_id", "queue", "freq", "active", "processed", "loadavg", "sw_ident"} {
					fields = append(fields, name, v)
				}
				e := event(kind, host, 1, fields...)
				s.Apply([]protocol.Event{e, {Type: kind, Hostname: host}, event(kind, host, -1e12, "uuid", "x", "args", v)})
			}
		}
	}
	_, _, _ = s.Tasks(TaskQuery{}), s.Workers(), s.Totals()
	if s.Totals().Bytes > 1<<20 {
		t.Errorf("totals are %+v", s.Totals())
	}
}

func TestStateConfig(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]StateConfig{"MaxTasks": {MaxTasks: -1}, "MaxBytes": {MaxBytes: -1}, "MaxText": {MaxText: -1},
		"MaxWorkers": {MaxWorkers: -1}, "OfflineExpires": {OfflineExpires: -1}} {
		if _, err := NewState(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v is refused with %v", c, err)
		}
	}
}

func TestTaskQueries(t *testing.T) {
	t.Parallel()
	s, _ := cluster(t, StateConfig{})
	s.Apply([]protocol.Event{event(protocol.TaskReceived, "w1@h", 1, "uuid", "a", "name", "t", "root_id", "r"), event(protocol.TaskStarted, "w2@h", 1, "uuid", "b", "name", "u"),
		event(protocol.TaskSent, "c@h", 1, "uuid", "c", "queue", "q")})
	for want, q := range map[string]TaskQuery{"c b a": {}, "a": {State: StateReceived}, "b": {Name: "u"}, "b ": {Worker: "w2@h"}, "c": {Queue: "q"},
		"a ": {RootID: "r"}, "c b": {Limit: 2}, "": {Name: "v"}} {
		var ids []string
		for _, task := range s.Tasks(q) {
			ids = append(ids, task.ID)
		}
		if got := strings.Join(ids, " "); got != strings.TrimSpace(want) {
			t.Errorf("%+v selects %q, want %q", q, got, want)
		}
	}
	if !slices.IsSortedFunc(s.Workers(), func(a, b Worker) int { return strings.Compare(a.Hostname, b.Hostname) }) {
		t.Error("workers are not in order")
	}
}
