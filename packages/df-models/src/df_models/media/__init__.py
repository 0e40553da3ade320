"""Reading and writing audio, images and video.

Audio for a model is float32 mono at 16 kHz with full scale 1; images and frames are uint8 RGB. Every writer is atomic:
a file stands under its final name only when it is whole.
"""

from df_models.media.audio import AudioFile, AudioSource, Waveform, read_audio, write_wav
from df_models.media.images import read_image, write_image
from df_models.media.video import Scaler, read_video, write_video

__all__ = [
    "AudioFile",
    "AudioSource",
    "Scaler",
    "Waveform",
    "read_audio",
    "read_image",
    "read_video",
    "write_image",
    "write_video",
    "write_wav",
]
