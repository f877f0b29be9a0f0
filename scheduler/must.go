package scheduler

// Must is for schedules that are written down in a program: Must(Every(time.Minute)). It panics if there is an error.
func Must[S Schedule](s S, err error) S {
	if err != nil {
		panic(err)
	}
	return s
}
