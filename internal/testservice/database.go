//go:build unix

package testservice

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/gelery/gelery/internal/databaseserver"
)

// DatabaseServer is a running database server in which a test makes databases. It is gone when the test ends.
type DatabaseServer struct {
	Addr string // 127.0.0.1:port

	server *databaseserver.Server
}

// NewDatabase makes an empty database and returns its URL without what stands before the name of the kind:
// postgresql://gelery@127.0.0.1:port/db1, mysql://root@127.0.0.1:port/db1.
func (s *DatabaseServer) NewDatabase(t testing.TB) string {
	t.Helper()
	url, err := s.server.NewDatabase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// Execute runs a statement as the server's administrator.
func (s *DatabaseServer) Execute(t testing.TB, statement string) {
	t.Helper()
	if err := s.server.Execute(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

// Signal sends a signal to the server: SIGSTOP and SIGCONT stop its acceptance of connections for a while.
func (s *DatabaseServer) Signal(sig syscall.Signal) error { return s.server.Signal(sig) }

// StartPostgreSQL starts a PostgreSQL for this test, in a folder of its own (2 s). User gelery may do everything there, without
// a password. The programs are found beside the one that POSTGRES_SERVER names, on the PATH, or where Debian puts them.
func StartPostgreSQL(t testing.TB) *DatabaseServer {
	t.Helper()
	postgres := databaseProgram(t, "POSTGRES_SERVER", "postgres", databaseserver.FindPostgreSQL())
	server, err := databaseserver.PostgreSQL(context.WithoutCancel(t.Context()), postgres)
	return started(t, server, err)
}

// StartMariaDB starts a MariaDB for this test, in a folder of its own (4 s). User root may do everything there, without a
// password. MARIADB_SERVER names its program where it is not on the PATH.
func StartMariaDB(t testing.TB) *DatabaseServer {
	t.Helper()
	mariadb, install, client := databaseserver.FindMariaDB()
	mariadb = databaseProgram(t, "MARIADB_SERVER", "mariadbd", mariadb)
	install = databaseProgram(t, "MARIADB_INSTALL", "mariadb-install-db", install)
	client = databaseProgram(t, "MARIADB_CLIENT", "mariadb", client)
	server, err := databaseserver.MariaDB(context.WithoutCancel(t.Context()), mariadb, install, client)
	return started(t, server, err)
}

func started(t testing.TB, server *databaseserver.Server, err error) *DatabaseServer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &DatabaseServer{Addr: server.Addr, server: server}
}

// databaseProgram is what was found, unless the environment variable names another one; without both it ends the test as Program does.
func databaseProgram(t testing.TB, env, name, found string) string {
	t.Helper()
	if found != "" && os.Getenv(env) == "" {
		return found
	}
	return Program(t, env, name)
}
