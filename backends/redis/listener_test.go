package redis

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// What was published while a fetch was under way is not undone by the older document that the fetch brings.
func TestFetchedDocumentDoesNotReplaceNewerOne(t *testing.T) {
	t.Parallel()
	codec, err := backends.NewCodec(backends.Options{})
	if err != nil {
		t.Fatal(err)
	}
	document := func(s protocol.State) string {
		text, err := codec.Append(nil, &protocol.ResultMeta{TaskID: "a", Status: s})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, tt := range []struct {
		name      string
		published bool
		fetched   any
		want      protocol.State
	}{
		{"published meanwhile", true, document(protocol.Started), "PROGRESS"},
		{"published meanwhile, nothing fetched", true, nil, "PROGRESS"},
		{"nothing published", false, document(protocol.Started), protocol.Started},
		{"nothing published or stored", false, nil, protocol.Pending},
	} {
		l := newListener(&Backend{prefix: backends.TaskKeyPrefix})
		l.start.Do(func() {}) // no connection: the test plays Redis
		in, ids := backends.NewInbox([]string{"a"})
		if err := l.join(in, ids); err != nil {
			t.Fatal(err)
		}
		l.note(&redis.Subscription{Kind: "subscribe", Channel: backends.TaskKeyPrefix + "a"})
		wanted := l.takeFetches()
		if len(wanted) != 1 {
			t.Fatalf("%d fetches", len(wanted))
		}
		if tt.published {
			l.note(&redis.Message{Channel: backends.TaskKeyPrefix + "a", Payload: document("PROGRESS")})
		}
		l.deliver(wanted, []any{tt.fetched}, nil)
		in.Run(deadline(t), codec, func(string) {}, func(m *protocol.ResultMeta, err error) bool {
			if err != nil || m.Status != tt.want {
				t.Errorf("%s: %v %v, want %s", tt.name, m, err, tt.want)
			}
			return false
		})
		l.stop()
	}
}
