/* knob.c: prints settings as programs without Python find them, for test_knob.py. */
#include <stdio.h>

#include "helper.h"

int main(int count, char **names)
{
    char value[64];
    for (int i = 1; i < count; i++) puts(pcm_knob_text(names[i], value, sizeof value) ? value : "");
    return 0;
}
