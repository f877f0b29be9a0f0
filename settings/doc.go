// Package settings reads Celery's settings, under Celery's names, into the configurations of a client and a worker.
//
//	s, err := settings.Load("gelery.yaml")
//	if err != nil { … } // every mistake of the file, with its line
//	client, err := task.Dial(ctx, s.WorkerClient())
//	w, err := worker.New(client, mux, s.Worker())
//
// # Sources
//
// A setting may come from several places. From the weakest to the strongest: its default; the file; the environment, where
// task_acks_late is CELERY_TASK_ACKS_LATE; an option of the command line; code, which changes the configurations it gets.
// Each value knows where it came from, see [Value].
//
// # Files
//
// A file is YAML, of which JSON is a part: a map of settings. Names are Celery's of today, in lower case. Its old ones in
// upper case (CELERYD_CONCURRENCY) and those of a Django project (CELERY_WORKER_CONCURRENCY) are understood. Settings that
// mean something to Python only are accepted and have no effect, see [Settings.Ignored]; a name that nobody knows is a
// mistake.
package settings
