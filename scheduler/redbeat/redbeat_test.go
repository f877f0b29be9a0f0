package redbeat

import (
	"log/slog"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/storetest"
)

func quiet(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// opened opens a store that is closed at the end.
func opened(t testing.TB, c Config) *Store {
	t.Helper()
	if c.Logger == nil {
		c.Logger = quiet(t)
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) func() scheduler.Store {
		url := testservice.Redis(t)
		return func() scheduler.Store { return opened(t, Config{URL: url}) }
	})
}

// z is a member of a zset.
func z(score float64, member string) redis.Z { return redis.Z{Score: score, Member: member} }
