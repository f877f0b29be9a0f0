// Package interop runs real Python Celery of several versions against Gelery: Python sends and Go works, Go sends and
// Python works, on the same broker and result backend. What arrives is judged on the side where it arrives, by Python's
// own == and type() or by Go's types.
//
// The Python side is in python/: a small application (app.py), a client that obeys JSON commands (driver.py) and named
// argument sets (values.py); commands.py runs the celery command itself. scripts/setup.sh makes one virtual environment for each version, .venv/celery-5.2 to
// .venv/celery-5.6. Without them the tests are skipped; with GELERY_TEST_PYTHON=required, as `make test` sets it, that
// is a failure.
//
//	go test ./interop                                    everything
//	go test ./interop -run 'TestMatrix/celery-5.6/rabbitmq.rpc/go-to-python'
//
// Every comparison is a cell: version, stack (broker and result backend), direction, name. With
// GELERY_INTEROP_REPORT=FILE each cell that ran adds the line
// "version TAB direction TAB stack: name TAB pass|fail|skip" to the file, so that `make test` can tell a version that was
// tested from one that was not.
//
// The package is a helper for tests and never part of a program.
package interop
