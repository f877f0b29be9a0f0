//go:build unix

package interop

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/redbeat"
)

// findRedBeat returns the environment of the newest Celery with RedBeat. Without it the test ends as with FindVersion.
func findRedBeat(t testing.TB) Version {
	t.Helper()
	return findEnvironment(t, "redbeat", "redbeat")
}

// redBeatSettings set up Python's beat: a lock that is soon free when it is killed, and that a busy machine does not make it lose, of
// which it would die; and a loop of a second.
func redBeatSettings(store, broker string) Settings {
	return Settings{Broker: broker, Backend: store, Conf: map[string]any{
		"redbeat_redis_url": store, "redbeat_lock_timeout": 10, "beat_max_loop_interval": 1, "redbeat_redis_options": map[string]any{"socket_timeout": 30},
	}}
}

func startRedBeat(t testing.TB, v Version, s Settings) *Process {
	t.Helper()
	return Start(t, "redbeat", v.Command(t, s, "celery", "-A", "app", "beat", "-S", "redbeat.RedBeatScheduler", "-l", "info", "--pidfile", ""))
}

// beatBrokers are the brokers that beats send to.
var beatBrokers = map[string]func(testing.TB) string{
	"redis":    func(t testing.TB) string { return testservice.Redis(t) },
	"rabbitmq": func(t testing.TB) string { return testservice.RabbitMQ(t).URL },
}

// TestRedBeatHandsOver: a live schedule goes from Gelery to Python's RedBeat and back, each stopped and each killed. Gelery sends each
// moment since the last run, whose ever that was, once; Python skips what was due before it came, but runs nothing early or twice.
func TestRedBeatHandsOver(t *testing.T) {
	t.Parallel()
	v := findRedBeat(t)
	for name, open := range beatBrokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, broker := testservice.Redis(t), open(t)
			store, ledger, python := openRedBeat(t, redbeat.Config{URL: url}), listen(t, broker), redBeatSettings(url, broker)
			entries := map[string]*handedOver{"one": {}, "two": {}, "cron": {}, "ours": {}}
			for name, schedule := range map[string]any{"one": int64(1), "two": int64(2), "cron": "* * * * *", "ours": map[string]any{"cron": "* * * * *"}} {
				putEntry(t, store, name, map[string]any{"schedule": schedule, "missed": "all"})
				entries[name].from(t, store, name)
			}
			ours := beatProgram{Store: url, Broker: broker, LockTimeout: 2 * time.Second}
			for i, phase := range []struct{ python, kill bool }{{false, false}, {true, false}, {false, true}, {true, true}, {false, false}} {
				before, _ := ledger.of("one")
				var beat *Process
				if phase.python {
					beat = startRedBeat(t, v, python)
				} else {
					beat = startBeat(t, ours)
				}
				ledger.await(t, "one", len(before)+3)
				after, _ := ledger.of("one")
				if sent := after[len(after)-1]; (sent.moment == "") != phase.python {
					t.Errorf("phase %d: %+v was sent by the other one", i, sent)
				}
				if phase.kill {
					beat.Kill()
				} else if code := beat.Stop(t, 30*time.Second); code != 0 && !phase.python { // RedBeat may end with 1: its tick extends the lock that its signal handler gave back
					t.Errorf("phase %d: exit code %d", i, code)
				}
				runs(t, store, "one") // Redis has dealt with all that came before
				for name, e := range entries {
					e.phase(t, store, name, phase.python)
				}
			}
			for name, e := range entries {
				e.wantSent(t, ledger, name, broker == url)
			}
		})
	}
}

// handedOver is what is to come of an entry that two kinds of beat send.
type handedOver struct {
	last    scheduler.State
	moments []time.Time // of Gelery's
	python  int         // how many are Python's
	ends    int         // how often Python has ended, each time perhaps between its mark and its send
}

func (h *handedOver) from(t testing.TB, store scheduler.Store, name string) scheduler.Record {
	t.Helper()
	r, err := store.Entry(within(t), name)
	if err != nil {
		t.Fatal(err)
	}
	h.last = r.State
	return r
}

// phase adds what was marked since the last phase.
func (h *handedOver) phase(t testing.TB, store scheduler.Store, name string, python bool) {
	t.Helper()
	before := h.last
	r := h.from(t, store, name)
	marked := int(r.State.TotalRunCount - before.TotalRunCount)
	var due []time.Time
	for at := r.Entry.Schedule.Next(before.LastRunAt); !at.After(r.State.LastRunAt); at = r.Entry.Schedule.Next(at) {
		due = append(due, at)
	}
	switch {
	case !python:
		if h.moments = append(h.moments, due...); marked != len(due) {
			t.Errorf("%s: Gelery ran it %d times from %v to %v", name, marked, before.LastRunAt, r.State.LastRunAt)
		}
	case marked > len(due) || marked > 0 && name == "ours":
		t.Errorf("%s: Python ran it %d times from %v to %v", name, marked, before.LastRunAt, r.State.LastRunAt)
	default:
		h.python += marked
		h.ends++
	}
}

// wantSent waits for all messages, and checks that they are those that were marked.
func (h *handedOver) wantSent(t testing.TB, ledger *beatLedger, name string, once bool) {
	t.Helper()
	ledger.awaitDistinct(t, name, len(h.moments)+h.python-h.ends)
	all, _ := ledger.of(name)
	if once && len(all) != distinct(all) {
		t.Errorf("%s: a message is there twice", name)
	}
	python, sent := 0, map[string]string{}
	for _, f := range all {
		if f.moment == "" {
			python++
		} else if id, has := sent[f.moment]; has && id != f.id {
			t.Errorf("%s: %s was sent twice", name, f.moment)
		}
		sent[f.moment] = f.id
	}
	delete(sent, "")
	if python > h.python || python < h.python-h.ends {
		t.Errorf("%s: Python sent %d, and marked %d", name, python, h.python)
	}
	for _, at := range h.moments {
		moment := protocol.FormatTime(at)
		if sent[moment] == "" {
			t.Errorf("%s: %s was not sent", name, moment)
		}
		delete(sent, moment)
	}
	if len(sent) > 0 {
		t.Errorf("%s: %v were sent and not marked", name, sent)
	}
}

// TestRedBeatReads: Python reads what Gelery writes of every kind of entry, and is to send it when Gelery would, or leaves it alone.
func TestRedBeatReads(t *testing.T) {
	t.Parallel()
	v, url := findRedBeat(t), testservice.Redis(t)
	store := openRedBeat(t, redbeat.Config{URL: url})
	alone := map[string]bool{}
	for name, fields := range map[string]map[string]any{
		"interval": {"schedule": 90.5, "kwargs": map[string]any{"a": []any{nil, true, 1.5, "ü"}}, "options": map[string]any{"queue": "q", "expires": int64(60)}},
		"relative": {"schedule": int64(3600), "relative": true}, "crontab": {"schedule": "*/15 8-18/2 1-7,15 jan,mar mon-fri"},
		"sunday": {"schedule": "0 22-4 ? * 7"}, "names": {"schedule": "0 0 * december thursday"}, "over": {"schedule": "50-10/5 * * * fri-mon"},
		"date": {"schedule": int64(60), "args": []any{time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)}}, "start": {"schedule": int64(60), "start": "2100-01-01"},
		"ours": {"schedule": int64(60), "missed": "all", "jitter": int64(5), "deadline": int64(60)}, "paused": {"schedule": int64(60), "enabled": false},
		"alone zone": {"schedule": "0 4 * * *", "timezone": "Asia/Tokyo"}, "alone cron": {"schedule": map[string]any{"cron": "0 0 13 * fri"}},
		"alone solar": {"schedule": map[string]any{"solar": "sunset", "latitude": 1.5, "longitude": 2.5}}, "alone at": {"schedule": map[string]any{"at": "2100-01-01"}},
		"alone end": {"schedule": int64(60), "end": "2100-01-01"}, "alone once": {"schedule": int64(60), "one_off": true},
		"alone typed":  {"schedule": int64(60), "args": []any{map[string]any{"__type__": "crontab"}}},
		"alone canvas": {"schedule": int64(60), "args": nil, "task": map[string]any{"task": "celery.chain", "subtask_type": "chain", "kwargs": map[string]any{"tasks": []any{map[string]any{"task": "a"}}}}},
	} {
		putEntry(t, store, name, fields)
		alone[name] = strings.HasPrefix(name, "alone")
	}
	out, err := v.Command(t, redBeatSettings(url, url), "python", "redbeats.py").Output()
	if err != nil {
		t.Fatalf("redbeats.py: %v\n%s", err, out)
	}
	var read map[string]struct {
		Due, Score float64
		Enabled    bool
	}
	if err := json.Unmarshal(out, &read); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name := range alone {
		p, ok := read[name]
		r, err := store.Entry(within(t), name)
		switch {
		case !ok || err != nil:
			t.Errorf("%s: Python has read it: %v; %v", name, ok, err)
		case alone[name]:
			if p.Score >= 0 || p.Enabled {
				t.Errorf("%s: Python does not leave it alone: %+v", name, p)
			}
		case name == "start": // its score says when
			if p.Score != float64(r.Entry.Due(r.State).Unix()) {
				t.Errorf("%s: %+v", name, p)
			}
		default:
			due := float64(r.Entry.Due(r.State).UnixMicro()) / 1e6
			if name == "ours" {
				due = float64(r.State.LastRunAt.Add(time.Minute).UnixMicro()) / 1e6
			}
			if p.Due < due-0.5 || p.Due > due+1.5 || p.Enabled != !r.Entry.Paused {
				t.Errorf("%s: due at %.3f for Python, %.3f for Gelery; enabled %v", name, p.Due, due, p.Enabled)
			}
		}
	}
}

// TestRedBeatWrites: Gelery reads what Python's RedBeat writes, rules included, and sends it when Python would.
func TestRedBeatWrites(t *testing.T) {
	t.Parallel()
	v, url := findRedBeat(t), testservice.Redis(t)
	out, err := v.Command(t, redBeatSettings(url, url), "python", "redbeats.py", "write").Output()
	if err != nil {
		t.Fatalf("redbeats.py: %v\n%s", err, out)
	}
	var written map[string]struct {
		After [][2]float64 // times, and the first moment after each by Python
	}
	if err := json.Unmarshal(out, &written); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	store := openRedBeat(t, redbeat.Config{URL: url})
	client := redis.NewClient(&redis.Options{Addr: strings.TrimSuffix(strings.TrimPrefix(url, "redis://"), "/0")})
	t.Cleanup(func() { _ = client.Close() })
	if len(written) < 10 {
		t.Errorf("Python wrote %d entries", len(written))
	}
	for name, w := range written {
		r, err := store.Entry(within(t), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, pair := range w.After {
			from := time.UnixMicro(int64(pair[0] * 1e6))
			next := r.Entry.Schedule.Next(from)
			if got := float64(next.UnixMicro()) / 1e6; next.IsZero() && pair[1] != 0 || !next.IsZero() && (got < pair[1]-0.01 || got > pair[1]+0.01) {
				t.Errorf("%s: after %v comes %v, and for Python %v", name, from.UTC(), next.UTC(), time.UnixMicro(int64(pair[1]*1e6)).UTC())
			}
		}
		// Paused and put back, Python's words stay.
		before := client.HGet(within(t), "redbeat:"+name, "definition").Val()
		for _, paused := range []bool{true, false} {
			if err := store.Pause(within(t), name, paused); err != nil {
				t.Errorf("%s: pause: %v", name, err)
			}
		}
		var was, is any
		_, _ = json.Unmarshal([]byte(before), &was), json.Unmarshal([]byte(client.HGet(within(t), "redbeat:"+name, "definition").Val()), &is)
		if fmt.Sprint(was) != fmt.Sprint(is) {
			t.Errorf("%s: was %v\nis %v", name, was, is)
		}
	}
}
