package transporttest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gelery/gelery/transport"
)

// testKeeper is for drivers whose broker remembers.
func testKeeper(t *testing.T, b *bench) {
	k, ok := b.transport.(transport.Keeper)
	if !ok {
		if b.Virtual {
			t.Error("a driver of a broker that is kombu's idea can remember, and this one does not")
		}
		return // AMQP has nowhere to remember
	}
	ctx := b.context()
	recall := func(within time.Duration) (names []string) {
		t.Helper()
		got, err := k.Recall(ctx, "heard", within)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range got {
			if m.Age < 0 || m.Age > within {
				t.Errorf("%s is %v old within %v", m.Member, m.Age, within)
			}
			names = append(names, m.Member)
		}
		slices.Sort(names)
		return names
	}
	remember := func(members int, age time.Duration, names ...string) {
		t.Helper()
		if err := k.Remember(ctx, "heard", names, transport.KeeperBounds{Members: members, Age: age}); err != nil {
			t.Fatal(err)
		}
	}
	if got := recall(time.Hour); len(got) != 0 {
		t.Errorf("at first it remembers %q", got)
	}
	remember(3, time.Hour, "a", "b\n\x00é")
	remember(3, time.Hour, "a")
	if got := recall(time.Hour); !slices.Equal(got, []string{"a", "b\n\x00é"}) {
		t.Errorf("it remembers %q", got)
	}
	if other, err := k.Recall(ctx, "other", time.Hour); len(other) != 0 || err != nil {
		t.Errorf("another set has %v, %v", other, err)
	}
	remember(3, time.Hour, "c")
	remember(3, time.Hour, "d") // one too many: the oldest goes
	if got := recall(time.Hour); !slices.Equal(got, []string{"a", "c", "d"}) {
		t.Errorf("of four members, three allowed, it remembers %q", got)
	}
	<-time.After(2 * time.Millisecond)
	remember(3, time.Millisecond, "e")
	if got := recall(time.Hour); len(got) > 1 || len(got) == 1 && got[0] != "e" {
		t.Errorf("what is older than a millisecond is remembered: %q", got)
	}
	many := make([]string, 2500)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	remember(2000, time.Hour, many...)
	if got := recall(time.Hour); len(got) != 2000 {
		t.Errorf("of 2,500 members, 2,000 allowed, it remembers %d", len(got))
	}
	if got := recall(0); len(got) == 2000 {
		t.Error("all of them are of this very moment")
	}
}
