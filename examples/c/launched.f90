! launched.f90: a program without MPI that a launcher starts, in Fortran: an allreduce and a broadcast, in all and in halves.
!
!     gfortran $(pycomm info --prefix)/include/pycomm.f90 launched.f90 $(pycomm info --compile) -o launched && pycomm run -n 4 ./launched
!
! launched.c is the same in C, and says more.
program launched
  use pycomm
  implicit none

  integer, parameter :: n = 1000
  type(c_ptr) :: world, all, half
  integer(c_int32_t), allocatable :: members(:)
  integer :: r, odd

  call check(pcm_launched_world(world, all))
  call use_it(all, 'all')

  odd = mod(pcm_comm_rank(all), 2)
  allocate (members, source=[(r, r = odd, pcm_comm_size(all) - 1, 2)])
  call check(pcm_comm_create(world, 2_c_int64_t + odd, members, size(members), half))
  call use_it(half, merge('odd ', 'even', odd == 1))

  call pcm_comm_free(half)
  call pcm_comm_free(all)
  call pcm_world_destroy(world)

contains

  subroutine check(status)
    integer(c_int), intent(in) :: status
    if (status /= pcm_ok) error stop pcm_error_text()
  end subroutine

  ! The sum of all ranks' numbers, and what the last rank has.
  subroutine use_it(comm, name)
    type(c_ptr), intent(in) :: comm
    character(*), intent(in) :: name
    real(c_double), target :: mine(n), total(n)
    type(pcm_call) :: call
    integer :: i, rank, p

    rank = pcm_comm_rank(comm)
    p = pcm_comm_size(comm)
    mine = [(rank + i, i = 1, n)]
    call = pcm_call(collective=pcm_allreduce, dtype=pcm_float64, op=pcm_sum, in=c_loc(mine), out=c_loc(total), count=n)
    call check(pcm_run(comm, call, -1._c_double))
    call = pcm_call(collective=pcm_broadcast, dtype=pcm_float64, root=p - 1, out=c_loc(mine), count=n)
    if (rank == p - 1) call%in = c_loc(mine)
    call check(pcm_run(comm, call, -1._c_double))
    if (any(abs(total - [(p * (p - 1) / 2 + p * i, i = 1, n)]) > 0)) error stop 'the sum is wrong'
    if (any(abs(mine - [(p - 1 + i, i = 1, n)]) > 0)) error stop 'what was broadcast is wrong'
    if (rank == 0) print '(a, i0, a)', trim(name) // ': ', p, ' ranks, right'
  end subroutine
end program
