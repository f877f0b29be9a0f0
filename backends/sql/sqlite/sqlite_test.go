package sqlite

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/backends/backendstest"
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
	backendstest.RunTable(t, func(t testing.TB) backendstest.Opener {
		url := "db+sqlite:///" + filepath.Join(t.TempDir(), "results.db")
		return func(t testing.TB, o backends.Options) backends.Backend { return open(t, url, o) }
	})
}
