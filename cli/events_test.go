package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/gelery/gelery/protocol"
)

// TestEvents dumps the events of a worker and its task, as text and as JSON lines.
func TestEvents(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, backend string) {
		text := run{args: []string{"-b", broker, "events"}}.start(t)
		lines := run{args: []string{"-b", broker, "events", "-o", "jsonl"}}.start(t)
		documents := run{args: []string{"-b", broker, "events", "-o", "yaml"}}.start(t)
		failures := run{args: []string{"-b", broker, "events", "--types", protocol.TaskFailed, "-n", "1"}}.start(t)
		startDemo(t, broker, backend, "-E", "-c", "1")
		for _, b := range []*background{text, lines, documents} { // heartbeats come until both are seen to listen
			b.output.waitFor(t, `worker-heartbeat`)
		}
		id := strings.TrimSpace(command(t, 0, "-b", broker, "call", "dev.add", "-a", "[2, 3]"))
		text.output.waitFor(t, `\ttask-received\tw1@test\t`+id+`\tdev\.add\targs='\(2, 3\)' kwargs='\{\}' retries=0 root_id='`+id+`'`)
		text.output.waitFor(t, `\ttask-succeeded\tw1@test\t`+id+`\tresult='5' runtime=`)
		line := lines.output.waitFor(t, `(?m)^.*"type": "task-succeeded".*$`)[0]
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil || event["uuid"] != id || event["result"] != "5" || event["hostname"] != "w1@test" ||
			!strings.HasPrefix(line, `{"hostname": "w1@test", "utcoffset": `) {
			t.Errorf("the event is %s, %v", line, err)
		}
		documents.output.waitFor(t, `(?m)^---\nhostname: w1@test\n(?:.+\n)*result: "5"\nruntime: .+\nuuid: `+id+`\ntimestamp: .+\ntype: task-succeeded\n`)
		// One that ends by itself, when a task fails that it heard of.
		for failed := false; !failed; {
			command(t, 0, "-b", broker, "call", "dev.fail", "-a", `["no"]`)
			select {
			case code := <-failures.code:
				if failed = true; code != 0 || strings.Count(failures.output.String(), "\n") != 1 || !strings.Contains(failures.output.String(), "\ttask-failed\tw1@test\t") {
					t.Errorf("exit code %d, %q", code, failures.output)
				}
			default:
			}
		}
		text.stop()
		if code := text.wait(t); code != exitInterrupted {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestTop(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, backend string) {
		screen := run{args: []string{"-b", broker, "top", "--interval", "0.02"}}.start(t)
		lines := run{args: []string{"-b", broker, "top", "--interval", "0.02", "-o", "jsonl"}}.start(t)
		startDemo(t, broker, backend, "-E", "-c", "1")
		for _, b := range []*background{screen, lines} {
			b.output.waitFor(t, `w1@test`)
		}
		id := strings.TrimSpace(command(t, 0, "-b", broker, "call", "dev.add", "-a", "[2, 3]"))
		screen.output.waitFor(t, `workers 1 of 1 alive   events \d+   tasks 1   SUCCESS 1\n\n`+
			`WORKER +STATUS +ACTIVE +PROCESSED +SUCCEEDED +FAILED +RETRIED +LOAD +SOFTWARE\nw1@test +online +\d +\d +1 +0 +0 +[0-9.]+ +gelery .*\n\n`+
			`TASK +SENT .*\ndev\.add +0 +1 +1 +1 +0 +0 +0 +[0-9.]+s\n\n`+
			`TIME .*\n[0-9:]+ +`+id+` +dev\.add +SUCCESS +ready +w1@test +[0-9.]+s 5\n`)
		line := lines.output.waitFor(t, `(?m)^.*"SUCCESS":1.*$`)[0]
		var p picture
		if err := json.Unmarshal([]byte(line), &p); err != nil || len(p.Tasks) != 1 || p.Tasks[0].ID != id || p.Tasks[0].Result != "5" || len(p.Workers) != 1 ||
			p.Totals.ByType["dev.add"].Succeeded != 1 {
			t.Errorf("the picture is %s, %v", line, err)
		}
		screen.stop()
		if code := screen.wait(t); code != exitInterrupted {
			t.Errorf("exit code %d", code)
		}
		if got := command(t, 0, "-b", broker, "top", "--interval", "0.01", "-n", "2", "-o", "json"); strings.Count(got, "\n") != 2 {
			t.Errorf("two pictures are %q", got)
		}
		if got := command(t, 0, "-b", broker, "top", "--interval", "0.01", "-n", "2", "-o", "yaml"); strings.Count(got, "---\ntotals:\n") != 2 {
			t.Errorf("two pictures are %q", got)
		}
	})
}

// TestEventsOfSomeWorkers: --destination leaves the events of other nodes out.
func TestEventsOfSomeWorkers(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, backend string) {
		one := run{args: []string{"-b", broker, "events", "--destination", "w2@test,w3@test"}}.start(t)
		picture := run{args: []string{"-b", broker, "top", "--interval", "0.02", "-d", "w2@test"}}.start(t)
		startDemo(t, broker, backend, "--heartbeat-interval", "0.2")
		second := run{args: []string{"-b", broker, "--result-backend", backend, "worker", "--demo", "-n", "w2@test", "-Q", "other", "--heartbeat-interval", "0.2"}}.start(t)
		second.output.waitFor(t, `w2@test ready\.\n`)
		one.output.waitFor(t, `(?s)(?:\tw2@test\t.*){5}`) // the other sends as often
		picture.output.waitFor(t, `\nw2@test +online`)
		for _, b := range []*background{one, picture} {
			if strings.Contains(b.output.String(), "w1@test") {
				t.Errorf("w1 is shown:\n%s", b.output)
			}
		}
	})
}

// TestOddEventText: what a stranger puts into an event moves no cursor.
func TestOddEventText(t *testing.T) {
	t.Parallel()
	e := &protocol.Event{Type: "task-\x1b[2J", Hostname: "a\tb", Fields: []protocol.EventField{{Name: "uuid", Value: "\x07"}, {Name: "x\n", Value: "\x1b"}}}
	if got := eventText(e); strings.ContainsAny(got, "\x1b\x07\n") || strings.Count(got, "\t") != 4 {
		t.Errorf("the text is %q", got)
	}
	if lines := columnsOf([]string{"A", "B"}, [][]string{{"\x1b", "é"}, {"x", "y"}}); lines[1] != `"\x1b"  é  ` || lines[2] != "x       y  " {
		t.Errorf("the columns are %q", lines)
	}
	if got := cut("éééé", 2); got != "éé" {
		t.Errorf("cut makes %q", got)
	}
}

func TestEventsUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ command, want string }{
		{"events -n -1", "--limit is less than 0"}, {"events -o xml", `"xml" is not table, plain, json, jsonl or yaml`},
		{"events -o table", "there is no --output table"}, {"top -o plain", "there is no --output plain"}, {"top --interval 0", "--interval is below 0.01"}, {"top --max-tasks 0", "--max-tasks below 1"},
	} {
		code, stdout, stderr := run{args: append([]string{"-b", "memory://" + protocol.NewID()}, strings.Fields(tt.command)...)}.do(t)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit code %d, %q, want %q in %q", tt.command, code, stdout, tt.want, stderr)
		}
	}
}
