package mysql

import (
	dbsql "database/sql"
	"errors"

	"github.com/go-sql-driver/mysql"

	"github.com/gelery/gelery/backends/sql"
)

// kinds are the numbers of the servers' errors that are not fatal.
var kinds = map[uint16]sql.Kind{
	1062: sql.Raced, // duplicate key
	1213: sql.Raced, // deadlock
	1020: sql.Raced, // the row has changed since it was read

	1021: sql.Unavailable,                                               // disk full
	1030: sql.Unavailable,                                               // the storage engine
	1037: sql.Unavailable, 1038: sql.Unavailable, 1041: sql.Unavailable, // memory
	1040: sql.Unavailable, 1203: sql.Unavailable, 1226: sql.Unavailable, // connections
	1047: sql.Unavailable, // a node of a cluster that is not ready
	1053: sql.Unavailable, // shutdown
	1077: sql.Unavailable, 1078: sql.Unavailable, 1079: sql.Unavailable,
	1114: sql.Unavailable,                                                                                                                    // table full
	1129: sql.Unavailable,                                                                                                                    // too many attempts that failed
	1152: sql.Unavailable, 1158: sql.Unavailable, 1159: sql.Unavailable, 1160: sql.Unavailable, 1161: sql.Unavailable, 1184: sql.Unavailable, // the connection
	1180: sql.Unavailable,                                               // commit
	1205: sql.Unavailable,                                               // somebody holds a lock
	1290: sql.Unavailable, 1792: sql.Unavailable, 1836: sql.Unavailable, // read only, as a server is that lost its role
	1317: sql.Unavailable, 1927: sql.Unavailable, 1969: sql.Unavailable, 3024: sql.Unavailable, // interrupted

	1118: sql.Unfit, 1153: sql.Unfit, 1301: sql.Unfit, 1406: sql.Unfit, // size
	1264: sql.Unfit, 1265: sql.Unfit, 1292: sql.Unfit, 1366: sql.Unfit, // values
	1267: sql.Unfit, 1270: sql.Unfit, 1271: sql.Unfit, 1300: sql.Unfit, 3988: sql.Unfit, // characters
}

// kind goes by the error's number; what has none did not come from the server.
func kind(err error) sql.Kind {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return kinds[e.Number] // else Fatal
	}
	if errors.Is(err, mysql.ErrPktTooLarge) {
		return sql.Unfit
	}
	for _, setup := range []error{mysql.ErrNoTLS, mysql.ErrCleartextPassword, mysql.ErrNativePassword, mysql.ErrOldPassword,
		mysql.ErrUnknownPlugin, mysql.ErrOldProtocol, dbsql.ErrConnDone} {
		if errors.Is(err, setup) {
			return sql.Fatal
		}
	}
	return sql.Unavailable
}
