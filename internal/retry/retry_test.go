package retry

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestCutShort: of a try that the end of the context has cut short nothing is to be learned; the one before tells why.
func TestCutShort(t *testing.T) {
	t.Parallel()
	refused := errors.New("connection refused")
	for name, tt := range map[string]struct {
		before []error
		last   func(ctx context.Context) error
		want   string
	}{
		"the first":          {nil, context.Context.Err, "ask: context canceled"},
		"after a refusal":    {[]error{refused}, context.Context.Err, "ask: context canceled, last error: connection refused"},
		"with a better word": {[]error{errors.New("slow")}, func(context.Context) error { return refused }, "ask: context canceled, last error: connection refused"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		tries := 0
		err := Policy{Server: "server", Again: func(error) bool { return true }}.Do(ctx, slog.New(slog.DiscardHandler), "ask", func(ctx context.Context) error {
			if tries++; tries <= len(tt.before) {
				return tt.before[tries-1]
			}
			cancel()
			return tt.last(ctx)
		})
		if err == nil || !errors.Is(err, context.Canceled) || strings.TrimSpace(err.Error()) != tt.want {
			t.Errorf("%s: %v, expected %s", name, err, tt.want)
		}
	}
}
