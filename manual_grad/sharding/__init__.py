"""Losses of tensors that are spread over processes: of their classes, of a batch, or of both.

With plain tensors, a functional takes a process group over which the classes are spread, and each process passes its
own (``group=``). With DTensors the same functionals need no argument: a DTensor says how it is spread, and so do the
loss and the gradients that come out.

=============================================  =======================================================================
:mod:`~manual_grad.sharding.log_prob`          a row whose classes are spread: two all-reduces, of a maximum and a sum
:mod:`~manual_grad.sharding.linear`            the same from hidden states, with the layer's weight spread
:mod:`~manual_grad.sharding.cross_entropy`     cross entropy with all its options, made of these
:mod:`~manual_grad.sharding.layouts`           along which dimensions the tensors of each functional may be spread
:mod:`~manual_grad.sharding.dtensors`          DTensors in, DTensors out
:mod:`~manual_grad.engine.ring`                pairs of all rows of a batch that is spread, for contrastive losses
:mod:`~manual_grad.engine.collectives`         sums and maxima over processes, with derivatives
:mod:`~manual_grad.engine.parts`               the merging of the states of a softmax, from which all of this follows
=============================================  =======================================================================

Every process must make the same calls. If one is lost, the others get an error of their process group.
"""
