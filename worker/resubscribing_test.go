package worker

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

const manySubscriptions = 100

// briefBroker is a broker whose subscriptions end after so many messages. It has enough of a hundred of them.
type briefBroker struct {
	transport.Transport
	messages, subscribed int
	enough               context.CancelFunc
}

func (b *briefBroker) Subscribe(context.Context, string, string) (transport.Subscription, error) {
	if b.subscribed++; b.subscribed == manySubscriptions {
		b.enough()
	}
	return &briefSubscription{b.messages}, nil
}

type briefSubscription struct{ left int }

func (s *briefSubscription) Receive(context.Context) (transport.Delivery, error) {
	if s.left--; s.left < 0 {
		return transport.Delivery{}, transport.ErrClosed
	}
	return transport.Delivery{Err: errors.New("it cannot be read")}, nil
}

func (s *briefSubscription) Close() error { return nil }

// TestSubscriptionsThatEnd: a broker that takes a subscription and ends it at once is asked again after a pause that doubles; one
// that has sent something is asked at once.
func TestSubscriptionsThatEnd(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ messages, want int }{"at once": {0, 4}, "after a message": {1, manySubscriptions}} {
		for _, actor := range []string{"gossip", "control"} {
			t.Run(actor+" "+name, func(t *testing.T) {
				s := newSite(t)
				b := &briefBroker{Transport: s.client.Transport(), messages: tt.messages}
				client, err := task.NewClient(b, nil, task.Config{})
				if err != nil {
					t.Fatal(err)
				}
				w, err := New(client, s.mux, Config{Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // after 0, 1, 3 and 7 s
					defer cancel()
					b.enough = cancel
					if actor == "gossip" {
						w.gossip.run(ctx)
					} else {
						newControl(ctx, w).listen(ctx)
					}
				})
				if b.subscribed != tt.want {
					t.Errorf("subscribed %d times within 10 s; expected %d", b.subscribed, tt.want)
				}
			})
		}
	}
}
