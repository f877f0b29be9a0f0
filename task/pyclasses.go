package task

import (
	"errors"
	"strings"
)

// PyError is the error class errors.Is looks for when it is asked about Python exceptions:
//
//	errors.Is(err, task.PyError("OSError"))                     // a builtin, with its subclasses
//	errors.Is(err, task.PyError("shop.errors.CardDeclined"))    // a class of your own, by its full name
//
// Python's builtin exceptions, and those of Celery and billiard, are known with their bases. Of other classes nothing but
// their name travels: they match themselves, Exception and BaseException.
func PyError(class string) error {
	if !strings.Contains(class, ".") {
		class = "builtins." + class
	}
	return pyClass(class)
}

// pyClass is the full name of a Python class.
type pyClass string

func (c pyClass) Error() string { return strings.TrimPrefix(string(c), "builtins.") }

// isPyError reports whether target is a PyError that the class is, or derives from.
func isPyError(target error, module, class string) bool {
	want, ok := errors.AsType[pyClass](target)
	if !ok || class == "" {
		return false
	}
	if module == "" {
		module = "builtins"
	}
	return derives(module+"."+class, string(want))
}

func derives(class, want string) bool {
	if class == want {
		return true
	}
	if class == "builtins.BaseException" {
		return false
	}
	bases, known := pyBases[class]
	if !known {
		bases = "Exception"
	}
	for _, base := range strings.Fields(bases) {
		if !strings.Contains(base, ".") {
			base = "builtins." + base
		}
		if derives(base, want) {
			return true
		}
	}
	return false
}

// pyBases maps a class to its bases, as Python 3.11, Celery 5.6 and kombu 5.6 define them. Names without a module are
// builtins. Classes that derive from Exception directly are left out, as that is what derives assumes.
var pyBases = map[string]string{
	"builtins.BaseExceptionGroup":                  "BaseException",
	"builtins.BlockingIOError":                     "OSError",
	"builtins.BrokenPipeError":                     "ConnectionError",
	"builtins.BytesWarning":                        "Warning",
	"builtins.ChildProcessError":                   "OSError",
	"builtins.ConnectionAbortedError":              "ConnectionError",
	"builtins.ConnectionError":                     "OSError",
	"builtins.ConnectionRefusedError":              "ConnectionError",
	"builtins.ConnectionResetError":                "ConnectionError",
	"builtins.DeprecationWarning":                  "Warning",
	"builtins.EncodingWarning":                     "Warning",
	"builtins.Exception":                           "BaseException",
	"builtins.ExceptionGroup":                      "BaseExceptionGroup Exception",
	"builtins.FileExistsError":                     "OSError",
	"builtins.FileNotFoundError":                   "OSError",
	"builtins.FloatingPointError":                  "ArithmeticError",
	"builtins.FutureWarning":                       "Warning",
	"builtins.GeneratorExit":                       "BaseException",
	"builtins.ImportWarning":                       "Warning",
	"builtins.IndentationError":                    "SyntaxError",
	"builtins.IndexError":                          "LookupError",
	"builtins.InterruptedError":                    "OSError",
	"builtins.IsADirectoryError":                   "OSError",
	"builtins.KeyError":                            "LookupError",
	"builtins.KeyboardInterrupt":                   "BaseException",
	"builtins.ModuleNotFoundError":                 "ImportError",
	"builtins.NotADirectoryError":                  "OSError",
	"builtins.NotImplementedError":                 "RuntimeError",
	"builtins.OverflowError":                       "ArithmeticError",
	"builtins.PendingDeprecationWarning":           "Warning",
	"builtins.PermissionError":                     "OSError",
	"builtins.ProcessLookupError":                  "OSError",
	"builtins.RecursionError":                      "RuntimeError",
	"builtins.ResourceWarning":                     "Warning",
	"builtins.RuntimeWarning":                      "Warning",
	"builtins.SyntaxWarning":                       "Warning",
	"builtins.SystemExit":                          "BaseException",
	"builtins.TabError":                            "IndentationError",
	"builtins.TimeoutError":                        "OSError",
	"builtins.UnboundLocalError":                   "NameError",
	"builtins.UnicodeDecodeError":                  "UnicodeError",
	"builtins.UnicodeEncodeError":                  "UnicodeError",
	"builtins.UnicodeError":                        "ValueError",
	"builtins.UnicodeTranslateError":               "UnicodeError",
	"builtins.UnicodeWarning":                      "Warning",
	"builtins.UserWarning":                         "Warning",
	"builtins.ZeroDivisionError":                   "ArithmeticError",
	"celery.exceptions.AlreadyRegistered":          "celery.exceptions.TaskError",
	"celery.exceptions.AlwaysEagerIgnored":         "celery.exceptions.CeleryWarning",
	"celery.exceptions.BackendGetMetaError":        "celery.exceptions.BackendError",
	"celery.exceptions.BackendStoreError":          "celery.exceptions.BackendError",
	"celery.exceptions.CDeprecationWarning":        "DeprecationWarning",
	"celery.exceptions.CPendingDeprecationWarning": "PendingDeprecationWarning",
	"celery.exceptions.CeleryWarning":              "UserWarning",
	"celery.exceptions.ChordError":                 "celery.exceptions.TaskError",
	"celery.exceptions.DuplicateNodenameWarning":   "celery.exceptions.CeleryWarning",
	"celery.exceptions.FixupWarning":               "celery.exceptions.CeleryWarning",
	"celery.exceptions.Ignore":                     "celery.exceptions.TaskPredicate",
	"celery.exceptions.ImproperlyConfigured":       "celery.exceptions.CeleryError",
	"celery.exceptions.IncompleteStream":           "celery.exceptions.TaskError",
	"celery.exceptions.InvalidTaskError":           "celery.exceptions.TaskError",
	"celery.exceptions.MaxRetriesExceededError":    "celery.exceptions.TaskError",
	"celery.exceptions.NotConfigured":              "celery.exceptions.CeleryWarning",
	"celery.exceptions.NotRegistered":              "KeyError celery.exceptions.TaskError",
	"celery.exceptions.QueueNotFound":              "KeyError celery.exceptions.TaskError",
	"celery.exceptions.Reject":                     "celery.exceptions.TaskPredicate",
	"celery.exceptions.Retry":                      "celery.exceptions.TaskPredicate",
	"celery.exceptions.SecurityError":              "celery.exceptions.CeleryError",
	"celery.exceptions.SecurityWarning":            "celery.exceptions.CeleryWarning",
	"celery.exceptions.TaskError":                  "celery.exceptions.CeleryError",
	"celery.exceptions.TaskPredicate":              "celery.exceptions.CeleryError",
	"celery.exceptions.TaskRevokedError":           "celery.exceptions.TaskError",
	"celery.exceptions.TimeoutError":               "celery.exceptions.TaskError",
	"celery.exceptions.WorkerShutdown":             "SystemExit",
	"celery.exceptions.WorkerTerminate":            "SystemExit",
	"decimal.Clamped":                              "decimal.DecimalException",
	"decimal.ConversionSyntax":                     "decimal.InvalidOperation",
	"decimal.DecimalException":                     "ArithmeticError",
	"decimal.DivisionByZero":                       "decimal.DecimalException ZeroDivisionError",
	"decimal.DivisionImpossible":                   "decimal.InvalidOperation",
	"decimal.DivisionUndefined":                    "decimal.InvalidOperation ZeroDivisionError",
	"decimal.FloatOperation":                       "decimal.DecimalException TypeError",
	"decimal.Inexact":                              "decimal.DecimalException",
	"decimal.InvalidContext":                       "decimal.InvalidOperation",
	"decimal.InvalidOperation":                     "decimal.DecimalException",
	"decimal.Overflow":                             "decimal.Inexact decimal.Rounded",
	"decimal.Rounded":                              "decimal.DecimalException",
	"decimal.Subnormal":                            "decimal.DecimalException",
	"decimal.Underflow":                            "decimal.Inexact decimal.Rounded decimal.Subnormal",
	"json.decoder.JSONDecodeError":                 "ValueError",
	"kombu.exceptions.ChannelLimitExceeded":        "kombu.exceptions.LimitExceeded",
	"kombu.exceptions.ConnectionLimitExceeded":     "kombu.exceptions.LimitExceeded",
	"kombu.exceptions.ContentDisallowed":           "kombu.exceptions.SerializerNotInstalled",
	"kombu.exceptions.DecodeError":                 "kombu.exceptions.SerializationError",
	"kombu.exceptions.EncodeError":                 "kombu.exceptions.SerializationError",
	"kombu.exceptions.LimitExceeded":               "kombu.exceptions.KombuError",
	"kombu.exceptions.OperationalError":            "kombu.exceptions.KombuError",
	"kombu.exceptions.SerializationError":          "kombu.exceptions.KombuError",
	"kombu.exceptions.SerializerNotInstalled":      "kombu.exceptions.KombuError",
}
