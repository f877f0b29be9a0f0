package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gelery/gelery/scheduler"
)

// local is a file of JSON with a state file beside it.
type local struct{ dir, file, state string }

func newLocal(_ context.Context, dir string) (place, error) { return &local{dir: dir}, nil }

func (p *local) fill(_ context.Context, t *trial) error {
	p.file, p.state = filepath.Join(p.dir, t.name+".json"), filepath.Join(p.dir, t.name+".state")
	definition := `{"task": "bench.one", "schedule": "0 0 29 2 *"}`
	if t.every > 0 {
		definition = fmt.Sprintf(`{"task": "bench.one", "schedule": %d}`, t.every)
	}
	text := []byte("{")
	for i := range t.entries {
		text = fmt.Appendf(text, "%q: %s,\n", entryName(i), definition)
	}
	text[len(text)-2] = '}'
	if err := os.WriteFile(p.file, text, 0o600); err != nil || t.phases == 0 {
		return err
	}
	text = []byte("{\"gelery_beat\":1}\n")
	for i := range t.entries {
		text = fmt.Appendf(text, "{\"name\":%q,\"last_run_at\":%q}\n", entryName(i), t.last(i).Format(time.RFC3339Nano))
	}
	return os.WriteFile(p.state, text, 0o600)
}

func (p *local) open(_ context.Context, log *slog.Logger) (scheduler.Store, error) {
	return scheduler.NewLocal(scheduler.LocalConfig{Files: []string{p.file}, StateFile: p.state, Logger: log})
}

func (*local) changes() map[string]func(ctx context.Context, n int) error { return nil }
func (*local) server() (string, int)                                      { return "", 0 }
func (*local) close() error                                               { return nil }
