// Package mysql is the database result backend on MySQL and MariaDB. Importing it makes db+mysql://, db+mariadb:// and the
// same with django-db+ known to backends.Open, also with the drivers' names that SQLAlchemy knows (pymysql, mysqldb, …).
//
// The query of a URL holds what Python's drivers know: charset (utf8mb4 only, which is used anyway), unix_socket,
// connect_timeout, read_timeout and write_timeout (seconds; the first is 4), ssl_ca, ssl_cert and ssl_key (files; a ssl_ca makes the
// connection a verified TLS one). The database of a URL must be there.
//
// Celery's column for results is a BLOB here: a result of more than 65,535 bytes cannot be stored by Python, nor by Gelery,
// until the column is made larger: ALTER TABLE celery_taskmeta MODIFY result LONGBLOB. A DATETIME keeps whole seconds.
package mysql

import (
	"context"
	dbsql "database/sql"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/gelery/gelery/backends/sql"
	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/internal/database"
)

func init() { sql.Register(dialect) }

var dialect = &sql.Dialect{
	Dialect: database.Dialect{
		Names: []string{"mysql", "mysql+pymysql", "mysql+mysqldb", "mysql+mysqlconnector",
			"mariadb", "mariadb+pymysql", "mariadb+mysqldb", "mariadb+mariadbconnector"},
		Connect:     connect,
		Placeholder: func(int) string { return "?" },
		Quote:       quote,
		Time:        sql.PlainTime,
		Kind:        kind,
	},
	Create:       create,
	NewID:        newID,
	Limits:       limits,
	DuplicateKey: true,
	Binary:       func(expr string) string { return "CAST(" + expr + " AS BINARY)" },
}

const defaultPort = 3306

func connect(u brokerurl.URL) (*dbsql.DB, error) {
	if u.Path == "" {
		return nil, errors.New("the URL names no database; expected for example db+mysql://user:password@host/database")
	}
	config, err := parseOptions(u.Query)
	if err != nil {
		return nil, err
	}
	config.User, config.Passwd, config.DBName = u.User, u.Password, u.Path
	if config.Net == "" {
		host, port := u.Host, u.Port
		if host == "" {
			host = "localhost"
		}
		if port == 0 {
			port = defaultPort
		}
		config.Net, config.Addr = "tcp", net.JoinHostPort(host, strconv.Itoa(port))
	}
	if config.TLS != nil {
		config.TLS.ServerName = u.Host
	}
	// What does not fit its column is an error, whatever the server's mode.
	config.Params = map[string]string{"sql_mode": "'STRICT_ALL_TABLES'"}
	// One round trip a statement, and nothing is prepared in the server, so that a proxy may stand in between.
	config.InterpolateParams = true
	config.MaxAllowedPacket = 0 // ask the server
	config.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, err
	}
	return dbsql.OpenDB(connector), nil
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// create makes ids as SQLAlchemy does: from a sequence where the server has those, which is MariaDB from 10.3 on.
func create(ctx context.Context, db *dbsql.DB, t sql.Table) ([]string, error) {
	var has int
	if err := db.QueryRowContext(ctx, "SELECT 0 /*M!100300 + 1 */").Scan(&has); err != nil { // MySQL takes it for a comment
		return nil, err
	}
	types := sql.Types{ID: "INTEGER NOT NULL AUTO_INCREMENT", Bytes: "BLOB", Time: "DATETIME"}
	if has == 0 {
		return sql.CreateTable(t, quote, types), nil
	}
	types.ID = "INTEGER NOT NULL"
	return append([]string{"CREATE SEQUENCE IF NOT EXISTS " + qualified(t, t.Sequence())}, sql.CreateTable(t, quote, types)...), nil
}

func qualified(t sql.Table, name string) string {
	if t.Schema != "" {
		return quote(t.Schema) + "." + quote(name)
	}
	return quote(name)
}

// aboutTable is the condition that a row of information_schema is about a table.
const aboutTable = " AND table_schema = COALESCE(?, DATABASE()) AND table_name = ?"

// schemaOf is what aboutTable asks for first.
func schemaOf(t sql.Table) dbsql.NullString {
	return dbsql.NullString{String: t.Schema, Valid: t.Schema != ""}
}

// newID is the next number of SQLAlchemy's sequence where that is there, else what the column makes by itself.
func newID(ctx context.Context, db *dbsql.DB, t sql.Table, sequence string) (string, error) {
	if sequence == "" {
		return "DEFAULT", nil
	}
	there := 0
	err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.tables WHERE table_type = 'SEQUENCE'"+aboutTable, schemaOf(t), sequence).Scan(&there)
	if err != nil || there == 0 {
		return "DEFAULT", err
	}
	return "NEXTVAL(" + qualified(t, sequence) + ")", nil
}

// limits are bytes of BLOB and TEXT, characters of VARCHAR. A server may have made the tables in latin1.
func limits(ctx context.Context, db *dbsql.DB, t sql.Table) (map[string]sql.Limit, error) {
	rows, err := db.QueryContext(ctx, "SELECT column_name, data_type, character_maximum_length, character_octet_length, COALESCE(character_set_name, 'utf8mb4')"+
		" FROM information_schema.columns WHERE character_maximum_length IS NOT NULL"+aboutTable, schemaOf(t), t.Name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	found := map[string]sql.Limit{}
	for rows.Next() {
		var name, kind, charset string
		var characters, bytes int
		if err := rows.Scan(&name, &kind, &characters, &bytes, &charset); err != nil {
			return nil, err
		}
		limit := sql.Limit{Bytes: bytes}
		if strings.HasSuffix(strings.ToLower(kind), "char") {
			limit = sql.Limit{Characters: characters}
		}
		limit.ASCII = charset != "utf8mb4"
		found[name] = limit
	}
	return found, rows.Err()
}

// connectTimeout bounds one attempt, unless the URL does.
const connectTimeout = 4 * time.Second
