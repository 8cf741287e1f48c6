package db

// #include "sqlite.h"
// #include <stdlib.h>
import "C"

import (
	"fmt"
	"path/filepath"
	"unsafe"
)

// keepLibraries loads the shared objects into the process, and says of the first that cannot be why.
func keepLibraries(paths []string) error {
	for _, path := range paths {
		var reason [1024]C.char
		cpath := C.CString(path)
		kept := C.db_library_keep(cpath, &reason[0], C.size_t(len(reason)))
		C.free(unsafe.Pointer(cpath))
		if kept == 0 {
			return fmt.Errorf("load extension %s: %s", filepath.Base(path), C.GoString(&reason[0]))
		}
	}
	return nil
}

// cStrings returns texts for C, and what frees them.
func cStrings(texts []string) (list **C.char, free func()) {
	if len(texts) == 0 {
		return nil, func() {}
	}
	cs := make([]*C.char, len(texts))
	for i, t := range texts {
		cs[i] = C.CString(t)
	}
	return &cs[0], func() {
		for _, c := range cs {
			C.free(unsafe.Pointer(c))
		}
	}
}

// refusal is the error of an extension that could not be made part of the connection; nil if it is not
// that which has failed.
func (c *conn) refusal(rc C.int, extensions []string) error {
	if c.c.refused < 0 {
		return nil
	}
	reason := C.GoString(c.c.refusal)
	if c.c.refusal == nil {
		reason = fmt.Sprintf("code %d", int(rc))
	}
	return &sqlError{code: int(rc), msg: fmt.Sprintf("load extension %s: %s", filepath.Base(extensions[c.c.refused]), reason)}
}
