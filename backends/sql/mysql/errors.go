package mysql

import (
	dbsql "database/sql"
	"errors"

	"github.com/go-sql-driver/mysql"

	"github.com/gelery/gelery/internal/database"
)

// kinds are the numbers of the servers' errors that are not fatal.
var kinds = map[uint16]database.Kind{
	1062: database.Raced, // duplicate key
	1213: database.Raced, // deadlock
	1020: database.Raced, // the row has changed since it was read

	1021: database.Unavailable,                                                         // disk full
	1030: database.Unavailable,                                                         // the storage engine
	1037: database.Unavailable, 1038: database.Unavailable, 1041: database.Unavailable, // memory
	1040: database.Unavailable, 1203: database.Unavailable, 1226: database.Unavailable, // connections
	1047: database.Unavailable, // a node of a cluster that is not ready
	1053: database.Unavailable, // shutdown
	1077: database.Unavailable, 1078: database.Unavailable, 1079: database.Unavailable,
	1114: database.Unavailable,                                                                                                                                             // table full
	1129: database.Unavailable,                                                                                                                                             // too many attempts that failed
	1152: database.Unavailable, 1158: database.Unavailable, 1159: database.Unavailable, 1160: database.Unavailable, 1161: database.Unavailable, 1184: database.Unavailable, // the connection
	1180: database.Unavailable,                                                         // commit
	1205: database.Unavailable,                                                         // somebody holds a lock
	1290: database.Unavailable, 1792: database.Unavailable, 1836: database.Unavailable, // read only, as a server is that lost its role
	1317: database.Unavailable, 1927: database.Unavailable, 1969: database.Unavailable, 3024: database.Unavailable, // interrupted

	1118: database.Unfit, 1153: database.Unfit, 1301: database.Unfit, 1406: database.Unfit, // size
	1264: database.Unfit, 1265: database.Unfit, 1292: database.Unfit, 1366: database.Unfit, // values
	1267: database.Unfit, 1270: database.Unfit, 1271: database.Unfit, 1300: database.Unfit, 3988: database.Unfit, // characters
}

// kind goes by the error's number; what has none did not come from the server.
func kind(err error) database.Kind {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return kinds[e.Number] // else Fatal
	}
	if errors.Is(err, mysql.ErrPktTooLarge) {
		return database.Unfit
	}
	for _, setup := range []error{mysql.ErrNoTLS, mysql.ErrCleartextPassword, mysql.ErrNativePassword, mysql.ErrOldPassword,
		mysql.ErrUnknownPlugin, mysql.ErrOldProtocol, dbsql.ErrConnDone} {
		if errors.Is(err, setup) {
			return database.Fatal
		}
	}
	return database.Unavailable
}
