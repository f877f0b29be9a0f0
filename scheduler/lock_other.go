//go:build !unix

package scheduler

// tryLock finds nobody: here files have no locks that end with their holder.
func tryLock(string) (unlock func(), taken bool, err error) { return func() {}, false, nil }
