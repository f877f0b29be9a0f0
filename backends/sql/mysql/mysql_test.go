package mysql

import (
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/backends/backendstest"
	"github.com/gelery/gelery/internal/testservice"
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

// newDatabase makes a database with Celery's tables in it, and a column for results that takes large ones.
func newDatabase(t testing.TB, server *testservice.DatabaseServer) (url, name string) {
	t.Helper()
	url = "db+" + server.NewDatabase(t)
	name = url[strings.LastIndex(url, "/")+1:]
	if err := open(t, url, backends.Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	server.Execute(t, "ALTER TABLE "+name+".celery_taskmeta MODIFY result LONGBLOB")
	return url, name
}

func TestServer(t *testing.T) {
	t.Parallel()
	server := testservice.StartMariaDB(t)
	t.Run("Contract", func(t *testing.T) {
		t.Parallel()
		backendstest.RunTable(t, func(t testing.TB) backendstest.Opener {
			url, _ := newDatabase(t, server)
			return func(t testing.TB, o backends.Options) backends.Backend { return open(t, url, o) }
		})
	})
	t.Run("BLOB", func(t *testing.T) {
		t.Parallel()
		testBLOB(t, "db+"+server.NewDatabase(t))
	})
	t.Run("IDs", func(t *testing.T) {
		t.Parallel()
		url := server.NewDatabase(t)
		server.Execute(t, "ALTER DATABASE "+url[strings.LastIndex(url, "/")+1:]+" CHARACTER SET latin1")
		testIDs(t, "db+"+url)
	})
}

// Celery's own column takes 65,535 bytes, and what is longer is an error that names its task.
func testBLOB(t *testing.T, url string) {
	b := open(t, url, backends.Options{})
	var refused *backends.EncodeError
	err := b.Store(t.Context(), []*protocol.ResultMeta{{TaskID: "small", Status: protocol.Success}, {TaskID: "large", Status: protocol.Success, Result: strings.Repeat("x", 70_000)}})
	if !errors.As(err, &refused) || refused.TaskID != "large" {
		t.Errorf("stored with %v", err)
	}
}

// Ids come from messages. In a table of few characters, and with a = that knows neither case nor trailing spaces, none harms
// another task.
func testIDs(t *testing.T, url string) {
	b := open(t, url, backends.Options{})
	if err := b.Store(t.Context(), []*protocol.ResultMeta{{TaskID: "a", Status: protocol.Success, Result: "of a"}}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"A", "a ", "日本", "é"} {
		var refused *backends.EncodeError
		err := b.Store(t.Context(), []*protocol.ResultMeta{{TaskID: "b", Status: protocol.Success}, {TaskID: id, Status: protocol.Failure}})
		if !errors.As(err, &refused) || refused.TaskID != id {
			t.Errorf("%q: stored with %v", id, err)
		}
		if m, err := b.GetMany(t.Context(), "a", id); err != nil || m[0].Status != protocol.Success || m[1].Status != protocol.Pending {
			t.Errorf("%q: got %v, %v", id, m, err)
		}
		if err := b.Forget(t.Context(), id); err != nil {
			t.Errorf("%q: forgotten with %v", id, err)
		}
	}
	if m, err := b.Get(t.Context(), "a"); err != nil || m.Result != "of a" {
		t.Errorf("in the end a is %v, %v", m, err)
	}
}
