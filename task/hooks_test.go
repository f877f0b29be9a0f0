package task

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gelery/gelery/transport"
)

// note is a middleware that keeps a diary.
func note(diary *[]string, name string) PublishMiddleware {
	return func(next Publish) Publish {
		return func(ctx context.Context, calls []*Publishing) error {
			*diary = append(*diary, name+" before "+calls[0].Request.Task)
			err := next(ctx, calls)
			*diary = append(*diary, name+" after")
			return err
		}
	}
}

func TestPublishMiddleware(t *testing.T) {
	t.Parallel()
	var diary []string
	change := func(next Publish) Publish {
		return func(ctx context.Context, calls []*Publishing) error {
			for _, p := range calls {
				p.Request.Task = "renamed"
				p.Request.Args = []any{7}
				p.Request.Properties.Priority = 5
				p.RoutingKey = "elsewhere"
				if err := p.SetHeader("trace", "t1"); err != nil {
					return err
				}
			}
			return next(ctx, calls)
		}
	}
	client, p := probeClient(t, Config{Middleware: []PublishMiddleware{note(&diary, "outer"), change, note(&diary, "inner")}})
	res, err := add.Send(t.Context(), client, addArgs{2, 3}, Header("trace", "t0"), Header("other", 1))
	if err != nil {
		t.Fatal(err)
	}
	r, pub := p.last(t)
	if r.Task != "renamed" || r.ID != res.ID() || r.ArgsRepr != "(7,)" || len(r.Args) != 1 || pub.RoutingKey != "elsewhere" ||
		pub.Message.Properties.DeliveryInfo.RoutingKey != "elsewhere" || pub.Message.Properties.Priority != 5 {
		t.Errorf("sent %+v to %q", r, pub.RoutingKey)
	}
	if len(r.Extra) != 2 || r.Extra[0].Name != "other" || string(r.Extra[1].Value) != `"t1"` {
		t.Errorf("headers %v", r.Extra)
	}
	if want := []string{"outer before tasks.add", "inner before renamed", "inner after", "outer after"}; !slices.Equal(diary, want) {
		t.Errorf("order %q, want %q", diary, want)
	}
	if _, err := add.SendBatch(t.Context(), client, []addArgs{{1, 2}, {3, 4}}); err != nil || len(p.published) != 2 || len(p.published[1]) != 2 {
		t.Errorf("a batch is not sent as one: %v, %d", err, len(p.published))
	}
}

// TestPublishMiddlewareRefuses wants an error for whatever a middleware does not hand on as it should.
func TestPublishMiddlewareRefuses(t *testing.T) {
	t.Parallel()
	broken := errors.New("not today")
	tests := map[string]struct {
		middleware Publish
		next       bool
		want       string
	}{
		"an error": {func(context.Context, []*Publishing) error { return broken }, false, "not today"},
		"silence":  {func(context.Context, []*Publishing) error { return nil }, false, errKept.Error()},
		"its own": {func(_ context.Context, all []*Publishing) error {
			all[0] = &Publishing{Request: all[0].Request}
			return nil
		}, true, errForeign.Error()},
		"nothing":    {func(_ context.Context, all []*Publishing) error { all[0] = nil; return nil }, true, errForeign.Error()},
		"no name":    {func(_ context.Context, all []*Publishing) error { all[0].Request.Task = ""; return nil }, true, errForeign.Error()},
		"bad header": {func(_ context.Context, all []*Publishing) error { return all[0].SetHeader("task", "x") }, false, "custom header"},
		"bad value": {func(_ context.Context, all []*Publishing) error {
			all[0].Request.Args = []any{make(chan int)}
			return nil
		}, true, "chan"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, p := probeClient(t, Config{Middleware: []PublishMiddleware{func(next Publish) Publish {
				return func(ctx context.Context, all []*Publishing) error {
					err := tt.middleware(ctx, all)
					if err == nil && tt.next {
						return next(ctx, all)
					}
					return err
				}
			}}})
			_, err := add.Send(t.Context(), client, addArgs{2, 3})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "tasks.add") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if len(p.published) != 0 {
				t.Error("it was sent nevertheless")
			}
		})
	}
}

// TestPublishMiddlewareSeesFailure hands the broker's error to the middleware.
func TestPublishMiddlewareSeesFailure(t *testing.T) {
	t.Parallel()
	var seen error
	client, p := probeClient(t, Config{Middleware: []PublishMiddleware{func(next Publish) Publish {
		return func(ctx context.Context, all []*Publishing) error {
			seen = next(ctx, all)
			return seen
		}
	}}})
	p.err = &transport.PublishError{Err: transport.ErrBrokerFull}
	if _, err := add.Send(t.Context(), client, addArgs{2, 3}); !errors.Is(err, transport.ErrBrokerFull) || !errors.Is(seen, transport.ErrBrokerFull) {
		t.Errorf("got %v, the middleware %v", err, seen)
	}
}
