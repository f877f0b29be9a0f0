package backendstest

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gelery/gelery/backends"
)

// ofClaimers is what holds for a backends.Claimer.
var ofClaimers = []test{{"Claim", testClaim}, {"ClaimConcurrently", testClaimConcurrently}}

func claim(t *testing.T, b backends.Backend, name, holder string) bool {
	t.Helper()
	has, err := b.(backends.Claimer).Claim(deadline(t), name, holder)
	if err != nil {
		t.Fatal(err)
	}
	return has
}

func testClaim(t *testing.T, open Opener) {
	one, two := open(t, backends.Options{}), open(t, backends.Options{Expires: -1})
	long := strings.Repeat("long", 1000)
	for _, step := range []struct {
		b            backends.Backend
		name, holder string
		want         bool
	}{
		{one, "x", "a", true}, {two, "x", "b", false}, {two, "x", "a", true}, {one, "x", "b", false},
		{two, "y", "b", true}, {one, "y", "a", false}, {one, "y", "b", true},
		// Names and holders come from messages: any text is one, and the same as no other.
		{one, "X", "b", true}, {one, long, long, true}, {two, long, "a", false}, {one, long + "x", "a", true},
		{one, "../\x00\xff/ä", "a\x00", true}, {two, "../\x00\xff/ä", "a", false}, {two, "../\x00\xfe/ä", "A", true}, {one, "../\x00\xfe/ä", "a", false},
	} {
		if got := claim(t, step.b, step.name, step.holder); got != step.want {
			t.Errorf("%.10q has %.10q: %v", step.holder, step.name, got)
		}
	}
}

func testClaimConcurrently(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	var winners atomic.Int32
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if has, err := b.(backends.Claimer).Claim(deadline(t), "x", fmt.Sprint(i)); err != nil {
				t.Error(err)
			} else if has {
				winners.Add(1)
			}
		})
	}
	all.Wait()
	if n := winners.Load(); n != 1 {
		t.Errorf("%d have it", n)
	}
}
