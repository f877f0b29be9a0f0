package memory

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/backends/backendstest"
	"github.com/gelery/gelery/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, url string, o backends.Options) backends.Backend {
	t.Helper()
	b, err := backends.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func TestContract(t *testing.T) {
	t.Parallel()
	backendstest.Run(t, func(t testing.TB) backendstest.Opener {
		return func(t testing.TB, o backends.Options) backends.Backend { return open(t, "memory://"+t.Name(), o) }
	})
}

func TestStoresAreSharedByName(t *testing.T) {
	t.Parallel()
	one, same := open(t, "memory://shared/x", backends.Options{}), open(t, "memory://shared/x", backends.Options{})
	other := open(t, "memory://shared/y", backends.Options{})
	store := func(id string) {
		t.Helper()
		if err := one.Store(t.Context(), []*protocol.ResultMeta{{TaskID: id, Status: protocol.Success}}); err != nil {
			t.Fatal(err)
		}
	}
	state := func(b backends.Backend, id string) protocol.State {
		t.Helper()
		m, err := b.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return m.Status
	}
	store("a")
	if state(same, "a") != protocol.Success || state(other, "a") != protocol.Pending {
		t.Errorf("same name: %s, other name: %s", state(same, "a"), state(other, "a"))
	}
	_ = one.Close()
	if state(same, "a") != protocol.Success {
		t.Error("closing one closes the other")
	}
	_ = same.Close()
	if again := open(t, "memory://shared/x", backends.Options{}); state(again, "a") != protocol.Pending {
		t.Error("the store outlives its last backend")
	}
}

func TestExpiredRecordsAreThrownOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := open(t, "memory://expired", backends.Options{Expires: time.Minute}).(*Backend)
		for i := range 10_000 {
			<-time.After(time.Second) // of the bubble's clock
			err := b.Store(t.Context(), []*protocol.ResultMeta{{TaskID: strconv.Itoa(i), Status: protocol.Success}})
			if err != nil {
				t.Fatal(err)
			}
		}
		if n := len(b.store.records); n > 1024 {
			t.Errorf("%d records of which 60 live", n)
		}
	})
}

func TestNothingIsRememberedOfWatches(t *testing.T) {
	t.Parallel()
	b := open(t, "memory://watches", backends.Options{}).(*Backend)
	for _, err := range b.Watch(t.Context(), "a", "b") {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if len(b.watching)+len(b.store.watchers) != 0 {
		t.Errorf("%d inboxes, %d watchers", len(b.watching), len(b.store.watchers))
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for _, o := range []backends.Options{
		{TransportOptions: map[string]any{"global_keyprefix": "x"}},
		{Serializer: "xml"},
	} {
		if b, err := backends.Open(t.Context(), "memory://", o); err == nil {
			_ = b.Close()
			t.Errorf("%+v is taken", o)
		}
	}
}
