package redis

import (
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// What is to be there once is there once, from whichever client it comes, beside what may be there twice.
func TestOnce(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	rdb := client(t, url)
	once := func(id string) transport.Publication {
		p := publication("q", id, 0)
		p.Once = true
		return p
	}
	for range 2 {
		tr := dial(t, url, nil)
		publish(t, tr, once("a"), publication("q", "b", 0), once("c"))
		publish(t, tr, once("a"))
		if err := tr.Close(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
	if n := rdb.LLen(t.Context(), "q").Val(); n != 4 {
		t.Errorf("%d messages, want a and c once and b twice", n)
	}
	if life := rdb.TTL(t.Context(), "_gelery.once.q.a").Val(); life < onceLife-time.Minute || life > onceLife {
		t.Errorf("it is known for %v, want %v", life, onceLife)
	}

	// What a list refuses is not taken for sent.
	tr := dial(t, url, nil)
	t.Cleanup(func() { _ = tr.Close(t.Context()) })
	rdb.Set(t.Context(), "wrong", "not a list", 0)
	bad := once("d")
	bad.RoutingKey = "wrong"
	if err := tr.Publish(deadline(t), []transport.Publication{bad}); err == nil {
		t.Error("a list that is none took a message")
	}
	rdb.Del(t.Context(), "wrong")
	publish(t, tr, bad)
	if n := rdb.LLen(t.Context(), "wrong").Val(); n != 1 {
		t.Errorf("%d messages where one was refused before", n)
	}
}
