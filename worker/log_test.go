package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// records are what a logger wrote about one task, without the time, by the order of writing.
func records(t *testing.T, log *bytes.Buffer, id string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range strings.Lines(log.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r["task_id"] == id {
			all = append(all, r)
		}
	}
	return all
}

// TestLogLines compares the lines about tasks with Celery's.
func TestLogLines(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("fail", func() error { return task.AsPython(errors.New("kaput"), "builtins", "ValueError") })
	s.mux.Func("known", func() error { return task.AsPython(nil, "builtins", "KeyError", "ok") }, task.Throws(task.PyError("LookupError")))
	s.mux.Func("again", func() error {
		return task.Retry(task.AsPython(nil, "builtins", "KeyError", "nope 0"), task.Countdown(time.Hour), task.Queue("elsewhere"))
	})
	s.mux.Func("ignored", func() error { return task.Ignore })
	s.mux.Func("rejected", func() error { return task.Reject(errors.New("no thanks"), false) })
	s.mux.Func("talks", func(ctx context.Context) error { task.Logger(ctx).Info("half done", "rows", 5); return nil })
	var log bytes.Buffer
	s.start(Config{Concurrency: 1, Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	const id = "5b1a6d9e-7d5c-4a36-8a0b-0d4e3f2a1b00"
	tests := []struct {
		task string
		args []any
		opts []task.SendOption
		want []string // level and message
		keys string   // of the last record
	}{
		{"tasks.add", []any{1, 2}, nil, []string{"INFO Task tasks.add[ID] received", "INFO Task tasks.add[ID] succeeded in Ns: 3"}, "task task_id state result runtime"},
		{"tasks.add", []any{1, 2}, []task.SendOption{task.Shadow("sum")}, []string{"INFO Task sum[ID] received", "INFO Task sum[ID] succeeded in Ns: 3"}, "task"},
		{"fail", nil, nil, []string{"INFO Task fail[ID] received", "ERROR Task fail[ID] raised unexpected: ValueError('kaput')"}, "error traceback runtime"},
		{"known", nil, nil, []string{"INFO Task known[ID] received", "INFO Task known[ID] raised expected: KeyError('ok')"}, "error"},
		{"again", nil, nil, []string{"INFO Task again[ID] received", "INFO Task again[ID] retry: Retry in 3600s: KeyError('nope 0')"}, "task"},
		{"ignored", nil, nil, []string{"INFO Task ignored[ID] received", "INFO Task ignored[ID] ignored"}, "task"},
		{"rejected", nil, nil, []string{"INFO Task rejected[ID] received", "WARN Task rejected[ID] reject requeue=False: no thanks"}, "task"},
		{"talks", nil, nil, []string{"INFO Task talks[ID] received", "INFO half done", "INFO Task talks[ID] succeeded in Ns: None"}, "task"},
		{"tasks.add", nil, []task.SendOption{task.ExpiresAt(time.Unix(1, 0))}, []string{"INFO Task tasks.add[ID] received", "INFO Discarding revoked task: tasks.add[ID]"}, "task"},
		{"no.such", nil, nil, []string{"ERROR Received unregistered task of type 'no.such'. Its message is quarantined"}, "queue"},
	}
	ids := make([]string, len(tests))
	for i, tt := range tests {
		ids[i] = id + string(rune('a'+i))
		if _, err := s.client.Send(s.context(), tt.task, tt.args, nil, append(tt.opts, task.ID(ids[i]))...); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.client.Result(ids[len(ids)-1]).Get(s.context()); !errors.Is(err, task.ErrNotRegistered) {
		t.Fatal(err)
	}
	if _, err := s.send("tasks.add", 1, 1).Get(s.context()); err != nil { // behind all others in the only slot
		t.Fatal(err)
	}
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	for i, tt := range tests {
		got := records(t, &log, ids[i])
		var lines []string
		for _, r := range got {
			text := strings.ReplaceAll(r["level"].(string)+" "+r["msg"].(string), ids[i], "ID")
			if before, after, ok := strings.Cut(text, " succeeded in "); ok {
				_, result, _ := strings.Cut(after, "s: ")
				text = before + " succeeded in Ns: " + result
			}
			lines = append(lines, text)
		}
		if strings.Join(lines, "\n") != strings.Join(tt.want, "\n") {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.task, strings.Join(lines, "\n"), strings.Join(tt.want, "\n"))
			continue
		}
		for key := range strings.FieldsSeq(tt.keys) {
			if got[len(got)-1][key] == nil {
				t.Errorf("%s: the record has no %s: %v", tt.task, key, got[len(got)-1])
			}
		}
	}
}

// TestLogOff wants no repr made for lines that go nowhere.
func TestLogOff(t *testing.T) {
	w := &Worker{log: slog.New(slog.DiscardHandler)}
	e := &execution{job: &job{request: &protocol.Request{}}}
	allocations := testing.AllocsPerRun(100, func() {
		w.logOutcome(e, completion{state: protocol.Success, result: "x"})
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}
