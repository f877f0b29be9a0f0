package postgresql

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/backends/backendstest"
	"github.com/gelery/gelery/internal/testservice"
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
	server := testservice.StartPostgreSQL(t)
	backendstest.RunTable(t, func(t testing.TB) backendstest.Opener {
		url := "db+" + server.NewDatabase(t)
		return func(t testing.TB, o backends.Options) backends.Backend { return open(t, url, o) }
	})
}
