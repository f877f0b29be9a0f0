//go:build unix

package interop

import (
	"context"
	"flag"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/redbeat"
)

// beatKills is how long leaders are killed: ten minutes before a release.
var beatKills = flag.Duration("beat-kills", 15*time.Second, "how long a leading beat is killed every second")

// beatEvery are the intervals of the entries in these tests. All that is missed is made up for, so that each moment must come.
var beatEvery = map[string]time.Duration{"fast": 300 * time.Millisecond, "one": time.Second, "two": 2 * time.Second}

func putBeatEntries(t testing.TB, s scheduler.Store) {
	t.Helper()
	for name, every := range beatEvery {
		putEntry(t, s, name, map[string]any{"schedule": every.Seconds(), "missed": "all"})
	}
}

// wantEachOnce waits until what was marked is with the broker, and checks that each moment came once.
func wantEachOnce(t testing.TB, store scheduler.Store, ledger *beatLedger, doubles bool) {
	t.Helper()
	for name, every := range beatEvery {
		marked := runs(t, store, name)
		ledger.awaitDistinct(t, name, marked)
		all, _ := ledger.of(name)
		if n := distinct(all); n != marked {
			t.Errorf("%s: %d runs, and %d were marked", name, n, marked)
		}
		if !doubles && len(all) != distinct(all) {
			t.Errorf("%s: %d messages of %d runs", name, len(all), distinct(all))
		}
		wantSlots(t, all, every)
		t.Logf("%s: %d runs, %d messages", name, marked, len(all))
	}
}

// TestBeatLeadersKilled: of three beats the leader is killed every second. Each moment is sent once; on RabbitMQ, which cannot tell
// a message that it has, what comes twice has the same id.
//
// The long form: go test ./interop -run TestBeatLeadersKilled -beat-kills 10m -timeout 20m
func TestBeatLeadersKilled(t *testing.T) {
	t.Parallel()
	for name, open := range beatBrokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, broker := testservice.Redis(t), open(t)
			store, ledger := openRedBeat(t, redbeat.Config{URL: url}), listen(t, broker)
			putBeatEntries(t, store)
			program := beatProgram{Store: url, Broker: broker, LockTimeout: time.Second}
			beats := map[int]*Process{}
			start := func() {
				p := startBeat(t, program)
				beats[p.Pid()] = p
			}
			for range 3 {
				start()
			}
			client := redis.NewClient(&redis.Options{Addr: strings.TrimSuffix(strings.TrimPrefix(url, "redis://"), "/0")})
			t.Cleanup(func() { _ = client.Close() })
			kills := 0
			ticker := time.NewTicker(time.Second)
			defer ticker.Stop()
			for end := time.Now().Add(*beatKills); time.Now().Before(end); <-ticker.C {
				found := owner.FindStringSubmatch(client.Get(within(t), "redbeat::lock").Val())
				if found == nil {
					continue
				}
				pid, _ := strconv.Atoi(found[1])
				if p := beats[pid]; p != nil {
					p.Kill()
					delete(beats, pid)
					kills++
					start()
				}
			}
			last := runs(t, store, "one")
			ledger.awaitDistinct(t, "one", last+2) // somebody goes on
			for _, p := range beats {
				p.Stop(t, 30*time.Second)
			}
			if kills < 3 {
				t.Errorf("%d leaders were killed", kills)
			}
			t.Logf("%d leaders killed", kills)
			wantEachOnce(t, store, ledger, name != "redis")
		})
	}
}

// owner finds the process in the lock's token.
var owner = regexp.MustCompile(`^gelery:.*:(\d+):[0-9a-f]+$`)

// TestBeatKilledBetweenSteps is F88: a beat that dies between its mark and its send, or between its send and its report.
func TestBeatKilledBetweenSteps(t *testing.T) {
	t.Parallel()
	for name, open := range beatBrokers {
		for _, at := range []string{"marked", "sent"} {
			t.Run(name+" "+at, func(t *testing.T) {
				t.Parallel()
				url, broker := testservice.Redis(t), open(t)
				store, ledger := openRedBeat(t, redbeat.Config{URL: url}), listen(t, broker)
				putBeatEntries(t, store)
				program := beatProgram{Store: url, Broker: broker, LockTimeout: time.Second, Die: at}
				for range 3 {
					p := startBeat(t, program)
					select {
					case <-p.Exited():
					case <-time.After(time.Minute):
						t.Fatal("the beat does not die")
					}
				}
				program.Die = ""
				p := startBeat(t, program)
				ledger.awaitDistinct(t, "one", runs(t, store, "one")+2)
				p.Stop(t, 30*time.Second)
				wantEachOnce(t, store, ledger, name != "redis")
			})
		}
	}
}

// TestBeatLeaderFrozen is F87: a leader that is stopped for longer than its lease, and wakes, sends nothing that the next one sends.
func TestBeatLeaderFrozen(t *testing.T) {
	t.Parallel()
	for name, open := range beatBrokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, broker := testservice.Redis(t), open(t)
			store, ledger := openRedBeat(t, redbeat.Config{URL: url}), listen(t, broker)
			putBeatEntries(t, store)
			program := beatProgram{Store: url, Broker: broker, LockTimeout: 3 * time.Second}
			beats := map[int]*Process{}
			for range 2 {
				p := startBeat(t, program)
				beats[p.Pid()] = p
			}
			for range 3 {
				ledger.fromNowOn(t, "one", 1)
				pid := awaitLeader(t, url, 0)
				frozen := beats[pid]
				if err := frozen.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				lost := strings.Count(frozen.Output.Tail(maxLines), "no longer leading")
				if other := awaitLeader(t, url, pid); beats[other] == nil {
					t.Fatalf("process %d leads, which is none of ours", other)
				}
				ledger.fromNowOn(t, "one", 5) // it makes up for what was missed, and goes on
				if err := frozen.Signal(syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
				frozen.WaitNth(t, "no longer leading", lost+1)
			}
			for _, p := range beats {
				p.Stop(t, 30*time.Second)
			}
			wantEachOnce(t, store, ledger, name != "redis")
		})
	}
}

// awaitLeader waits until a beat, other than that of one process, has the lock, and returns its process.
func awaitLeader(t testing.TB, store string, except int) int {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: strings.TrimSuffix(strings.TrimPrefix(store, "redis://"), "/0")})
	defer client.Close()
	ctx := within(t)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if found := owner.FindStringSubmatch(client.Get(ctx, "redbeat::lock").Val()); found != nil {
			if pid, _ := strconv.Atoi(found[1]); pid != except {
				return pid
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatal("no other beat leads")
		}
	}
}

// fromNowOn waits for so many more messages of an entry.
func (l *beatLedger) fromNowOn(t testing.TB, entry string, n int) {
	t.Helper()
	all, _ := l.of(entry)
	l.awaitDistinct(t, entry, distinct(all)+n)
}

// awaitDistinct waits until there are messages of so many runs of an entry.
func (l *beatLedger) awaitDistinct(t testing.TB, entry string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		all, changed := l.of(entry)
		if distinct(all) >= n {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s: messages of %d runs, not of %d", entry, distinct(all), n)
		}
	}
}
