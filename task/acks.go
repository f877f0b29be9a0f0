package task

import "errors"

// AckEarly acknowledges the message before the run: a crash loses the task instead of repeating it. This is Celery's
// default (acks_late=False), but not ours.
func AckEarly() DefineOption {
	return forDefine("AckEarly", struct{}{}, func(s *settings, _ struct{}) error { s.AckEarly = new(true); return nil })
}

// AckLate acknowledges the message after the run, whatever the worker's default is. Celery: acks_late=True.
func AckLate() DefineOption {
	return forDefine("AckLate", struct{}{}, func(s *settings, _ struct{}) error { s.AckEarly = new(false); return nil })
}

// AckOnFailure says whether the message of a run that has failed is acknowledged, as by default, or rejected: a broker with
// a dead-letter exchange for its queue moves it there, any other drops it. FAILURE is stored in both cases. It is for tasks
// acknowledged late. Celery: acks_on_failure_or_timeout, and acks_on_failure of its coming version.
func AckOnFailure(ack bool) DefineOption {
	return forDefine("AckOnFailure", ack, func(s *settings, v bool) error { s.AckOnFailure = &v; return nil })
}

// AckOnTimeout is [AckOnFailure] for a run that has passed a time limit, soft or hard. Celery: acks_on_failure_or_timeout,
// and acks_on_timeout of its coming version. From 5.5 on Celery requeues such a message when it is not acknowledged, so that
// it times out for ever; Gelery rejects it.
func AckOnTimeout(ack bool) DefineOption {
	return forDefine("AckOnTimeout", ack, func(s *settings, v bool) error { s.AckOnTimeout = &v; return nil })
}

// MaxDeliveries is how often work on a message that was handed out before may begin, in place of the worker's setting;
// negative: no limit. It is for tasks acknowledged late; see the setting of the same name.
func MaxDeliveries(n int) DefineOption {
	return forDefine("MaxDeliveries", n, func(s *settings, v int) error {
		if v == 0 {
			return errors.New("it is at least 1, or negative for no limit")
		}
		s.MaxDeliveries = max(v, -1)
		return nil
	})
}
