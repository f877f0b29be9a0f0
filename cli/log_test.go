package cli

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

func TestLogLines(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		log  func(*slog.Logger)
		want string // behind the time
	}{
		{"plain", func(l *slog.Logger) { l.Info("hello") }, "INFO/MainProcess] hello\n"},
		{"attributes", func(l *slog.Logger) { l.Warn("m", "a", 1, "b", "x y", "c", "") }, `WARNING/MainProcess] m a=1 b="x y" c=""` + "\n"},
		{"one line", func(l *slog.Logger) { l.Error("m", "error", errors.New("a\nb\x1b[1m")) }, `ERROR/MainProcess] m error="a\nb\x1b[1m"` + "\n"},
		{"groups", func(l *slog.Logger) { l.With("k", "v").WithGroup("g").Info("m", slog.Group("h", "x", 1), "y", 2) },
			"INFO/MainProcess] m k=v g.h.x=1 g.y=2\n"},
		{"critical", func(l *slog.Logger) { l.Log(t.Context(), levelCritical, "m") }, "CRITICAL/MainProcess] m\n"},
		{"about a task", func(l *slog.Logger) {
			l.Info("Task a[1] raised unexpected: E()", slog.Any("", &worker.TaskLog{Task: "a", ID: "1", Traceback: "Traceback:\n  File\x1b\n"}))
		}, "INFO/MainProcess] Task a[1] raised unexpected: E()\nTraceback:\n  File\\x1b\n"},
		{"of a task", func(l *slog.Logger) { l.With(slog.Any("", task.LogName{Task: "a", ID: "1"})).Info("m", "k", 1) },
			"INFO/MainProcess] a[1]: m k=1\n"},
		{"a forged line", func(l *slog.Logger) { l.Info("Task a[1\n[2026] received") }, `INFO/MainProcess] Task a[1\n[2026] received` + "\n"},
		{"below the level", func(l *slog.Logger) { l.Debug("m") }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			l, shut, err := (&logFlags{level: "info", format: "text"}).open(&b)
			if err != nil {
				t.Fatal(err)
			}
			defer shut()
			tt.log(l)
			got := regexp.MustCompile(`^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}: `).ReplaceAllString(b.String(), "")
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLogFileIsAppended(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "w.log")
	for _, format := range []string{"text", "json"} {
		l, shut, err := (&logFlags{level: "WARNING", file: path, format: format}).open(nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Info("quiet")
		l.Warn("loud")
		shut()
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) != 2 || !strings.HasSuffix(lines[0], "WARNING/MainProcess] loud") || !strings.Contains(lines[1], `"level":"WARNING","msg":"loud"`) {
		t.Errorf("the file has\n%s", b)
	}
}
