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
	"github.com/gelery/gelery/scheduler/redbeat"
)

// findRedBeat returns the environment of the newest Celery with RedBeat. Without it the test ends as with FindVersion.
func findRedBeat(t testing.TB) Version {
	t.Helper()
	return findEnvironment(t, "redbeat", "redbeat")
}

// redBeatSettings set up Python's beat: a lock that is soon free when it is killed, and a loop of a second.
func redBeatSettings(store, broker string) Settings {
	return Settings{Broker: broker, Backend: store, Conf: map[string]any{
		"redbeat_redis_url": store, "redbeat_lock_timeout": 3, "beat_max_loop_interval": 1, "redbeat_redis_options": map[string]any{"socket_timeout": 30},
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

// TestRedBeatHandsOver: a live schedule goes from Gelery to Python's RedBeat and back, each stopped and each killed.
func TestRedBeatHandsOver(t *testing.T) {
	t.Parallel()
	v := findRedBeat(t)
	for name, open := range beatBrokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, broker := testservice.Redis(t), open(t)
			store, ledger, python := openRedBeat(t, redbeat.Config{URL: url}), listen(t, broker), redBeatSettings(url, broker)
			entries := map[string]map[string]any{
				"one": {"schedule": int64(1)}, "two": {"schedule": int64(2)}, "cron": {"schedule": "* * * * *"}, "ours": {"schedule": map[string]any{"cron": "* * * * *"}},
			}
			for name, fields := range entries {
				putEntry(t, store, name, fields)
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
				} else if code := beat.Stop(t, 30*time.Second); code != 0 {
					t.Errorf("phase %d: exit code %d", i, code)
				}
			}
			for name := range entries {
				marked := runs(t, store, name)
				// What Python's own death between its mark and its send lost is its own.
				for all, changed := ledger.of(name); distinct(all) < marked-1; all, changed = ledger.of(name) {
					select {
					case <-changed:
					case <-time.After(30 * time.Second):
						t.Fatalf("%s: %d messages of %d runs", name, distinct(all), marked)
					}
				}
				all, _ := ledger.of(name)
				if sent := distinct(all); sent > marked || sent < marked-1 {
					t.Errorf("%s: %d messages of %d runs", name, sent, marked)
				}
				if broker == url && len(all) != distinct(all) {
					t.Errorf("%s: a message is there twice", name)
				}
			}
		})
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
