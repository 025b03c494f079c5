"""The networks that judge motion and text in one space (Guo et al., 2022).

Movement snippets of four frames, a recurrent encoder of motion over them and one of captions; keys
and shapes are those of EricGuo5513/text-to-motion, whose `finest.tar` loads.

Axes: B samples, L frames, M = L / 4 snippets, W words, D features, C common width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from blocks import Recorded

# Frames of a snippet; the last features, foot contacts, are not looked at.
UNIT, CONTACTS = 4, 4


class MotionEvaluator(Recorded, nn.Module):
    """Motion and captions to vectors whose distance tells how well they match.

    Args:
        in_features: Features D of a frame, foot contacts included.
        dim_movement: Width of a snippet.
        dim_motion: Width of the recurrent encoder of motion.
        dim_text: Width of the recurrent encoder of captions.
        dim: Common width C.
        dim_word: Width of a word vector.
        dim_pos: Classes of words.
        drop_contacts: Whether the last 4 features are left out, as in the official evaluator; that
            of neu-vi/MARDM is given essential features only and reads them all.
    """

    def __init__(
        self,
        in_features: int = 263,
        dim_movement: int = 512,
        dim_motion: int = 1024,
        dim_text: int = 512,
        dim: int = 512,
        dim_word: int = 300,
        dim_pos: int = 15,
        drop_contacts: bool = True,
    ) -> None:
        super().__init__()
        self.in_features, self.dim = in_features, dim
        self.features = in_features - CONTACTS * drop_contacts
        self.movement_encoder = MovementEncoder(self.features, dim_movement)
        self.motion_encoder = MotionEncoder(dim_movement, dim_motion, dim)
        self.text_encoder = TextEncoder(dim_word, dim_pos, dim_text, dim)

    def embed_motion(self, motion: Tensor, lengths: Tensor) -> Tensor:
        """Motion to vectors.

        Args:
            motion: (B, L, D), L a multiple of 4. What is beyond a sample's length counts as 0: the
                snippet convolutions reach three frames beyond it. Pad to the same L always, 196 on
                HumanML3D: a sample as long as L ends at a border, not at zeros.
            lengths: Frames of each sample, (B,), at least 4.

        Returns:
            (B, C), in the order of the input.
        """
        beyond = torch.arange(motion.shape[1], device=motion.device) >= lengths.unsqueeze(1)
        motion = motion.masked_fill(beyond.unsqueeze(-1), 0)
        snippets = self.movement_encoder(motion[..., : self.features])
        out: Tensor = self.motion_encoder(snippets, lengths // UNIT)
        return out

    def embed_text(self, words: Tensor, classes: Tensor, lengths: Tensor) -> Tensor:
        """Captions to vectors.

        Args:
            words: Word vectors, (B, W, dim_word), start and end of the sentence included.
            classes: One-hot classes of words, (B, W, dim_pos).
            lengths: Words of each caption, (B,).

        Returns:
            (B, C), in the order of the input.
        """
        out: Tensor = self.text_encoder(words, classes, lengths)
        return out


class MovementEncoder(nn.Module):
    """Snippets of four frames, (B, L, features) to (B, L / 4, dim).

    Args:
        features: Features of a frame.
        dim: Width of a snippet.
    """

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv1d(features, dim, 4, 2, 1), nn.Dropout(0.2), nn.LeakyReLU(0.2),
            nn.Conv1d(dim, dim, 4, 2, 1), nn.Dropout(0.2), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.out_net = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Encodes (B, L, features)."""
        out: Tensor = self.out_net(self.main(x.mT).mT)
        return out


class MotionEncoder(nn.Module):
    """Snippets to a vector, by a recurrent network in both directions.

    Args:
        dim_movement: Width of a snippet.
        hidden: Width of the recurrent network.
        dim: Width of the vector.
    """

    def __init__(self, dim_movement: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.input_emb = nn.Linear(dim_movement, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.output_net = _summary(hidden, dim)
        self.hidden = nn.Parameter(torch.randn(2, 1, hidden))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Encodes (B, M, dim_movement) to (B, dim)."""
        out: Tensor = self.output_net(
            last_states(self.gru, self.input_emb(x), self.hidden, lengths)
        )
        return out


class TextEncoder(nn.Module):
    """A caption to a vector, by a recurrent network in both directions.

    Args:
        dim_word: Width of a word vector.
        dim_pos: Classes of words.
        hidden: Width of the recurrent network.
        dim: Width of the vector.
    """

    def __init__(self, dim_word: int, dim_pos: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.pos_emb = nn.Linear(dim_pos, dim_word)
        self.input_emb = nn.Linear(dim_word, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.output_net = _summary(hidden, dim)
        self.hidden = nn.Parameter(torch.randn(2, 1, hidden))

    def forward(self, words: Tensor, classes: Tensor, lengths: Tensor) -> Tensor:
        """Encodes (B, W, ...) to (B, dim)."""
        x = self.input_emb(words + self.pos_emb(classes))
        out: Tensor = self.output_net(last_states(self.gru, x, self.hidden, lengths))
        return out


def last_states(gru: nn.GRU, x: Tensor, hidden: Tensor, lengths: Tensor) -> Tensor:
    """Last states of both directions, (B, 2 H), over each sample's own length."""
    first = hidden.expand(-1, len(x), -1).contiguous()
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    _, last = gru(packed, first)
    return torch.cat((last[0], last[1]), -1)


def contrastive_terms(
    text: Tensor, motion: Tensor, others: Tensor, margin: float = 10.0
) -> tuple[Tensor, Tensor]:
    """Upstream's loss: squared distance of pairs, and how far others are within the margin.

    Args:
        text: (B, C).
        motion: Of the same samples, (B, C).
        others: Motion of other samples, (B, C).
        margin: Distance beyond which others are far enough.
    """
    apart = F.pairwise_distance(text, others, keepdim=True)
    together = F.pairwise_distance(text, motion, keepdim=True)
    return together.square().mean(), (margin - apart).clamp(min=0).square().mean()


def _summary(hidden: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(2 * hidden, hidden), nn.LayerNorm(hidden), nn.LeakyReLU(0.2),
        nn.Linear(hidden, dim),
    )  # fmt: skip
