package scheduler_test

import (
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/storetest"
)

func TestLocalContract(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"schedule.yaml", "schedule.json"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) func() scheduler.Store {
				dir := t.TempDir()
				return func() scheduler.Store {
					s, err := scheduler.NewLocal(scheduler.LocalConfig{
						Files: []string{filepath.Join(dir, name)}, StateFile: filepath.Join(dir, "state"),
						Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
					})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = s.Close() })
					return s
				}
			})
		})
	}
}
