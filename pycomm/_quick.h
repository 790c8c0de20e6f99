/* _quick.h: what the two files of the extension _quick have in common. */
#ifndef PYCOMM_QUICK_H
#define PYCOMM_QUICK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "pycomm.h"

struct array { /* a plain numpy array */
    void *data;
    uint64_t count;
    int dtype;
};

/* False: not a plain array, or not one that can be written to: which is for Python to look at. */
bool quick_look(PyObject *object, int writes, struct array *array);

struct handle { /* what a quick method finds in its first argument */
    PyObject_HEAD _Atomic uintptr_t address; /* of a pcm_comm, or 0 */
    char passes; /* whether ranks may pass on blocks of an uneven all-to-all, which Python arranges */
};
extern PyTypeObject quick_handle_type;

struct quick_method {
    PyObject_HEAD vectorcallfunc call;
    PyObject *function, *attributes;
    int what;              /* which collective, or how a message goes */
    int buffers, op, root; /* of a collective: how many arguments are; whether the next ones are these */
    int uneven;            /* of a collective: whether the buffers say the count of each block */
};

/* A method that is a C function, and gives to a function of Python what is not for it. */
PyObject *quick_make(PyObject *function, vectorcallfunc call, int what);

/* Adds what messages and requests need to the module. */
int quick_add_requests(PyObject *module);

static const double QUICK_TURN = 0.2; /* seconds in the core until Python may handle a signal */

#endif
