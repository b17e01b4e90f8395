/* An image for the stand-in tender: notes, and no code that could run. Compiled with -DTARGET=SPT
 * or HVT, and with what built.h and solo5_notes.h take. */
#include "solo5_notes.h"

_Noreturn void _start(void);

_Noreturn void _start(void)
{
    for (;;)
        ;
}
