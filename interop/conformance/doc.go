// Package conformance lets Celery's own integration suite (t/integration of its source package) judge a Gelery worker: the
// suite sends, waits and compares as ever, and in the place of the worker that it would start in its own process stands
// the program in worker/, which has the suite's tasks. The control is a Python worker in the same place.
//
//	make conformance                                         everything, some hours of waiting, and the table
//	make conformance CELL=celery-5.6/redis.redis             one version on one stack
//	go test ./interop/conformance                           the short form
//
// tests.tsv has a row for each test of the suite: whether it can judge a worker of another process, on which stacks, in
// which versions of Celery, and why not. python/foreign is the pytest plugin that puts the one worker in the place of the
// other; scripts/setup.sh fetches the suite into .venv/suite-*.
//
// For work on a worker that fails: GELERY_CONFORMANCE_TESTS is an expression of pytest's -k, GELERY_CONFORMANCE_WORKERS
// "go" or "python", GELERY_CONFORMANCE_LIMIT the seconds that a test may take.
//
// The package is a helper for tests and never part of a program.
package conformance
